#include "sweeps/schedule_state.h"

#include <algorithm>

#include "runner/core/error.h"

namespace ablate {
namespace {

LiveRun live_run(const ScheduleEntry& entry) {
  const RunProgress& progress = entry.live->progress();
  LiveRun live;
  live.name = entry.run->name;
  live.attempt = entry.live->attempt();
  live.step = progress.step;
  live.total_steps = entry.run->total_steps;
  live.loss = progress.loss;
  live.score = progress.score;
  if (progress.step_s && *progress.step_s > 0) {
    const auto steps = static_cast<double>(entry.run->total_steps - progress.step);
    live.images_per_s = static_cast<double>(entry.run->global_batch) / *progress.step_s;
    live.seconds_left = std::max(0.0, steps * *progress.step_s);
  } else if (entry.run->estimate_s > 0) {
    live.seconds_left = entry.run->estimate_s;
  }
  return live;
}

}  // namespace

bool is_ready(const std::vector<ScheduleEntry>& entries, const ScheduleEntry& entry) {
  return entry.stage == Stage::Waiting &&
         std::all_of(entry.run->parents.begin(), entry.run->parents.end(),
                     [&](std::size_t parent) { return entries[parent].stage == Stage::Done; });
}

bool any_in(const std::vector<ScheduleEntry>& entries, Stage stage) {
  return std::any_of(entries.begin(), entries.end(),
                     [&](const ScheduleEntry& entry) { return entry.stage == stage; });
}

std::vector<std::string> unfinished(const std::vector<ScheduleEntry>& entries) {
  std::vector<std::string> ids;
  for (const ScheduleEntry& entry : entries) {
    if (entry.stage == Stage::Waiting || entry.stage == Stage::Live) ids.push_back(entry.run->id);
  }
  return ids;
}

std::optional<std::size_t> free_slot(const std::vector<ScheduleEntry>& entries, std::size_t slots) {
  for (std::size_t slot = 0; slot < slots; ++slot) {
    const bool taken = std::any_of(entries.begin(), entries.end(), [&](const ScheduleEntry& entry) {
      return entry.stage == Stage::Live && entry.slot == slot;
    });
    if (!taken) return slot;
  }
  return std::nullopt;
}

namespace {

/// Of the time of its process.
double share_of(const ScheduleEntry& entry) { return entry.pack ? 1.0 / entry.pack->runs : 1.0; }

/// What has been learnt in this session about estimates: seconds really taken, and promised.
struct Experience {
  double taken = 0, promised = 0;

  void add(const ScheduleEntry& entry, double seconds) {
    if (entry.run->estimate_s <= 0) return;
    taken += seconds * share_of(entry);
    promised += entry.run->estimate_s;
  }
  double correction() const { return promised > 0 ? taken / promised : 1.0; }
};

/// Seconds of a whole live run, from the speed of its steps.
std::optional<double> projected_seconds(const ScheduleEntry& entry) {
  const RunProgress& progress = entry.live->progress();
  if (!progress.step_s || *progress.step_s <= 0) return std::nullopt;
  return static_cast<double>(entry.run->total_steps) * *progress.step_s;
}

}  // namespace

SweepStatus sweep_status(const std::vector<ScheduleEntry>& entries, int jobs) {
  SweepStatus status;
  Experience experience;
  double waiting = 0, left = 0;
  bool known = true;
  for (const ScheduleEntry& entry : entries) {
    if (entry.stage == Stage::Done) {
      ++status.done;
      if (entry.seconds > 0) experience.add(entry, entry.seconds);
    }
    if (entry.stage == Stage::Ended) ++status.failed;
    if (entry.stage == Stage::Waiting || (entry.live && entry.live->is_waiting())) {
      ++status.waiting;
      waiting += entry.run->estimate_s;
      known = known && entry.run->estimate_s > 0;
    } else if (entry.stage == Stage::Live) {
      status.live.push_back(live_run(entry));
      known = known && status.live.back().seconds_left;
      left += status.live.back().seconds_left.value_or(0) * share_of(entry);
      if (const auto seconds = projected_seconds(entry)) experience.add(entry, *seconds);
    }
  }
  if (known) status.seconds_left = (left + waiting * experience.correction()) / jobs;
  return status;
}

ScheduleSummary summarize(const std::vector<ScheduleEntry>& entries, std::size_t finished,
                          bool stop_requested) {
  ScheduleSummary summary;
  summary.finished = finished;
  for (const ScheduleEntry& entry : entries) {
    if (entry.stage == Stage::Done) {
      ++summary.done;
    } else if (entry.stage == Stage::Ended) {
      summary.problems.push_back(cat(entry.run->name, ": ", entry.problem));
    } else if (stop_requested) {
      summary.interrupted = true;
    } else {
      summary.problems.push_back(cat(entry.run->name, ": not finished"));
    }
  }
  return summary;
}

}  // namespace ablate
