#include "methods/ela_report.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "runner/core/text.h"

namespace ablate::methods::ela {
namespace {

using nlohmann::json;

template <typename Range, typename Value>
json column(const Range& entries, const Value& value) {
  json values = json::array();
  for (const auto& entry : entries) values.push_back(value(entry));
  return values;
}

json number_or_null(const std::optional<double>& value) {
  return value ? json(*value) : json(nullptr);
}

json moment(const std::optional<LayerMoments>& layer) {
  return layer ? json(layer->mean) : json(nullptr);
}

json deviation(const std::optional<LayerMoments>& layer) {
  if (!layer) return nullptr;
  return std::sqrt(std::max(0.0, layer->square - layer->mean * layer->mean));
}

/// Weights to four digits: a picture, not a result.
json matrix(const at::Tensor& values) {
  json rows = json::array();
  for (std::int64_t i = 0; i < values.size(0); ++i) {
    json row = json::array();
    for (std::int64_t j = 0; j < values.size(1); ++j) {
      row.push_back(std::round(values[i][j].item<double>() * 1e4) / 1e4);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

void add_statistics(json& body, const Controller& controller, const EpochStatistics& statistics) {
  body["divergence"] = column(statistics.layers, moment);
  body["deviation"] = column(statistics.layers, deviation);
  body["average"] = column(controller.moments(), moment);
  body["profiles"] = column(statistics.profiles, matrix);
}

void add_decision(json& body, const Decision& decision) {
  body["flips"] = decision.flips;
  body["z"] = column(decision.z, number_or_null);
  body["score"] = column(decision.score, number_or_null);
  body["fits"] = column(decision.fits, [](const GroupFit& fit) {
    return json{{"alpha", fit.beta.alpha}, {"beta", fit.beta.beta}, {"tau", fit.tau}};
  });
}

void report_metrics(TrainContext& context, const Controller& controller,
                    const EpochStatistics* statistics, const Decision* decision) {
  context.metric("ela/skipped",
                 static_cast<double>(std::ranges::count(controller.skipped(), true)));
  if (decision) context.metric("ela/flips", static_cast<double>(decision->flips));
  // With several fits, one a stage, the event has them all.
  if (decision && decision->fits.size() == 1) {
    const GroupFit& fit = decision->fits.front();
    context.metric("ela/alpha", fit.beta.alpha);
    context.metric("ela/beta", fit.beta.beta);
    context.metric("ela/tau", fit.tau);
  }
  if (!statistics) return;
  for (std::size_t i = 0; i < statistics->layers.size(); ++i) {
    if (!statistics->layers[i]) continue;
    context.metric(cat("ela/divergence/", controller.candidates()[i].block),
                   statistics->layers[i]->mean);
  }
}

}  // namespace

void report(TrainContext& context, const Controller& controller, const EpochStatistics* statistics,
            const Decision* decision, bool last) {
  report_metrics(context, controller, statistics, decision);
  json body{{"phase", last ? "freeze" : decision ? "search" : "warm-up"}};
  body["blocks"] = column(controller.candidates(), [](const Candidate& c) { return c.block; });
  body["stages"] = column(controller.candidates(), [](const Candidate& c) { return c.stage; });
  body["skipped"] = column(controller.skipped(), [](bool skipped) { return skipped ? 1 : 0; });
  if (statistics) add_statistics(body, controller, *statistics);
  if (decision) add_decision(body, *decision);
  context.event("ela_epoch", body);
}

}  // namespace ablate::methods::ela
