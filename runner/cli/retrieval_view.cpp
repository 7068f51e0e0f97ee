#include "runner/cli/retrieval_view.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include <nlohmann/json.hpp>

#include "results/number_format.h"
#include "results/sparkline.h"
#include "runner/core/text.h"

namespace ablate::cli {
namespace {

using nlohmann::json;

constexpr std::string_view kKind = "ela_epoch";
constexpr std::size_t kMaskWidth = 60, kCurveWidth = 20;
constexpr int kDigits = 3;

/// The last word on each step: a later attempt does some steps again.
std::vector<json> epochs_of(const std::vector<EventInfo>& events) {
  std::map<std::int64_t, json> by_step;
  for (const EventInfo& event : events) {
    if (event.kind != kKind || event.rank > 0) continue;
    const json body = json::parse(event.body_json, nullptr, /*allow_exceptions=*/false);
    if (body.is_object() && body.contains("blocks") && body.contains("skipped")) {
      by_step[event.step] = body;
    }
  }
  std::vector<json> epochs;
  for (auto& [step, body] : by_step) epochs.push_back(std::move(body));
  return epochs;
}

/// Entry `layer` of a column; null where the epoch does not have it.
json entry(const json& epoch, const char* column, std::size_t layer) {
  const auto found = epoch.find(column);
  return found != epoch.end() && layer < found->size() ? (*found)[layer] : json(nullptr);
}

std::string number_text(const json& value) {
  if (!value.is_number()) return "";
  const auto number = value.get<double>();
  return format_fixed(number, decimals_for_value(number, kDigits));
}

/// One sign an epoch; where there are too many, the last of each stretch.
std::string mask_line(const std::vector<json>& epochs, std::size_t layer) {
  const std::size_t width = std::min(kMaskWidth, epochs.size());
  std::string line;
  for (std::size_t i = 0; i < width; ++i) {
    const json& epoch = epochs[(i + 1) * epochs.size() / width - 1];
    line += entry(epoch, "skipped", layer) == 1 ? "█" : "·";
  }
  return line;
}

std::string divergence_line(const std::vector<json>& epochs, std::size_t layer) {
  std::vector<double> values;
  for (const json& epoch : epochs) {
    if (!epoch.contains("divergence")) continue;
    const json value = entry(epoch, "divergence", layer);
    values.push_back(value.is_number() ? value.get<double>()
                                       : std::numeric_limits<double>::quiet_NaN());
  }
  return values.empty() ? "" : sparkline(values, kCurveWidth);
}

const json* last_decision(const std::vector<json>& epochs) {
  const auto found = std::find_if(epochs.rbegin(), epochs.rend(),
                                  [](const json& epoch) { return epoch.contains("score"); });
  return found == epochs.rend() ? nullptr : &*found;
}

std::string summarize(const std::vector<json>& epochs) {
  const json& mask = epochs.back().at("skipped");
  std::string text = cat(std::count(mask.begin(), mask.end(), 1), " of ", mask.size(), " skipped, ",
                         epochs.back().value("phase", "") == "freeze" ? "for good" : "so far");
  const json* decision = last_decision(epochs);
  if (!decision) return text;
  for (const json& fit : decision->value("fits", json::array())) {
    text += cat("; alpha ", number_text(fit.value("alpha", json())), ", beta ",
                number_text(fit.value("beta", json())), ", tau ",
                number_text(fit.value("tau", json())));
  }
  return text;
}

/// A weight in [0, 1]; nothing where there is none.
std::string shade(const json& weight) {
  constexpr std::array kShades{"·", "░", "▒", "▓", "█"};
  const double value = weight.is_number() ? std::clamp(weight.get<double>(), 0.0, 1.0) : 0.0;
  if (value == 0.0) return " ";
  return kShades[static_cast<std::size_t>(std::lround(value * (kShades.size() - 1)))];
}

std::string shades(const json& weights) {
  std::string line;
  for (const json& weight : weights) line += shade(weight);
  return line;
}

std::vector<std::vector<std::string>> picture_weights(const std::vector<json>& epochs) {
  const auto measured = std::find_if(epochs.rbegin(), epochs.rend(),
                                     [](const json& epoch) { return epoch.contains("profiles"); });
  if (measured == epochs.rend()) return {};
  const json& stages = measured->at("profiles");
  std::vector<std::vector<std::string>> grid(1);
  for (std::size_t stage = 0; stage < stages.size(); ++stage) {
    grid[0].push_back(cat("stage ", stage));
    const std::size_t lines = std::max(grid.size(), stages[stage].size() + 1);
    grid.resize(lines, std::vector<std::string>(stages.size()));
    for (std::size_t i = 0; i < stages[stage].size(); ++i) {
      grid[i + 1][stage] = shades(stages[stage][i]);
    }
  }
  return grid;
}

}  // namespace

RetrievalView view_retrievals(const std::vector<EventInfo>& events) {
  const std::vector<json> epochs = epochs_of(events);
  if (epochs.empty()) return {};
  RetrievalView view;
  view.grid.push_back({"stage", "block", "skipped, by epoch", "divergence", "z", "score"});
  const json* decision = last_decision(epochs);
  for (std::size_t layer = 0; layer < epochs.back().at("blocks").size(); ++layer) {
    view.grid.push_back({entry(epochs.back(), "stages", layer).dump(),
                         entry(epochs.back(), "blocks", layer).dump(), mask_line(epochs, layer),
                         divergence_line(epochs, layer),
                         decision ? number_text(entry(*decision, "z", layer)) : "",
                         decision ? number_text(entry(*decision, "score", layer)) : ""});
  }
  view.summary = summarize(epochs);
  view.weights = picture_weights(epochs);
  return view;
}

bool shown_as_retrievals(const EventInfo& event) { return event.kind == kKind; }

bool shown_as_retrievals(const std::string& metric) {
  return metric.starts_with("ela/divergence/");
}

}  // namespace ablate::cli
