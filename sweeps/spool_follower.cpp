#include "sweeps/spool_follower.h"

#include <algorithm>

namespace ablate {
namespace {

constexpr double kStepTimeSmoothing = 0.05;

}  // namespace

const RunProgress& SpoolFollower::update() {
  if (!reader_) {
    if (!std::filesystem::exists(path_)) return progress_;
    reader_ = std::make_unique<SpoolReader>(path_);
  }
  while (const auto frame = reader_->next()) {
    ++progress_.records;
    take(frame->record);
  }
  return progress_;
}

void SpoolFollower::take(const Record& record) {
  if (const auto* definition = std::get_if<MetricDef>(&record)) {
    metrics_[definition->id] = definition->name;
  } else if (const auto* points = std::get_if<Points>(&record)) {
    for (const Point& point : points->points) take_point(point);
  } else if (const auto* header = std::get_if<SpoolHeader>(&record)) {
    progress_.step = std::max<std::int64_t>(header->first_step - 1, 0);
  } else if (const auto* outcome = std::get_if<Outcome>(&record)) {
    progress_.outcome = *outcome;
    progress_.step = std::max(progress_.step, outcome->last_step);
  } else if (std::holds_alternative<Seal>(record)) {
    progress_.sealed = true;
  }
}

void SpoolFollower::take_point(const Point& point) {
  const auto metric = metrics_.find(point.metric);
  if (metric == metrics_.end()) return;
  if (metric->second == "train/loss") {
    progress_.loss = point.value;
    progress_.step = std::max(progress_.step, point.step);
  } else if (metric->second == "eval/top1" || metric->second == "eval/miou") {
    progress_.score =
        HeadlineScore{metric->second.substr(std::string_view("eval/").size()), point.value};
  } else if (metric->second == "memory/device_mib") {
    progress_.device_mib = point.value;
  } else if (metric->second == "time/step_s") {
    const double before = progress_.step_s.value_or(point.value);
    progress_.step_s = before + kStepTimeSmoothing * (point.value - before);
  }
}

}  // namespace ablate
