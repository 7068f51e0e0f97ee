#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sweeps/live_attempt.h"
#include "sweeps/progress.h"
#include "sweeps/scheduler.h"

namespace ablate {

enum class Stage {
  Waiting,
  Live,
  Done,
  Ended,  ///< without a result, and not to be tried again now
};

/// The runs that one process began with.
struct Pack {
  using Clock = std::chrono::steady_clock;

  std::string shape;
  int runs = 1;
  std::uint64_t gpu_bytes = 0;
  bool trial = false;                              ///< how fast so many runs are is to be found out
  std::optional<Clock::time_point> at_work_since;  ///< all of them
  std::optional<Clock::time_point> measured_since;
  double images_before = 0;  ///< seen by then
};

/// One run of a schedule as it stands.
struct ScheduleEntry {
  const ScheduledRun* run = nullptr;
  Stage stage = Stage::Waiting;
  std::string problem;  // why it ended without a result
  int tries = 0;        // attempts without progress
  int failures = 0;     // attempts that failed by themselves
  std::int64_t best_step = 0;
  std::unique_ptr<LiveAttempt> live;
  std::shared_ptr<Pack> pack;  // of the present or last attempt
  bool regrouped = false;      // asked to stop so as to go on among more runs
  std::size_t slot = 0;
  std::chrono::steady_clock::time_point started;
  double seconds = 0;  // it took from beginning to end; 0 when it was interrupted or ran earlier
};

bool is_ready(const std::vector<ScheduleEntry>& entries, const ScheduleEntry& entry);
bool any_in(const std::vector<ScheduleEntry>& entries, Stage stage);

/// Ids of the runs that wait or are at work.
std::vector<std::string> unfinished(const std::vector<ScheduleEntry>& entries);

/// The first of `slots` places that no live run holds.
std::optional<std::size_t> free_slot(const std::vector<ScheduleEntry>& entries, std::size_t slots);

/// What the view shows, with so many processes at a time. Estimates of runs that wait are corrected
/// by how long others really took; a run counts by its share of its process. Time passed and
/// stopping are the caller's.
SweepStatus sweep_status(const std::vector<ScheduleEntry>& entries, int jobs);

ScheduleSummary summarize(const std::vector<ScheduleEntry>& entries, std::size_t finished,
                          bool stop_requested);

}  // namespace ablate
