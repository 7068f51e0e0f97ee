#pragma once

#include <chrono>
#include <exception>
#include <string>
#include <vector>

#include "runner/core/run_paths.h"
#include "sweeps/live_attempt.h"
#include "sweeps/packs.h"
#include "sweeps/run_state.h"
#include "sweeps/schedule_state.h"
#include "sweeps/scheduler.h"

namespace ablate {

/// The loop behind run_schedule(). Starting and following runs is in scheduler.cpp, what becomes of
/// one whose attempt has ended in schedule_outcomes.cpp.
class Scheduler {
 public:
  Scheduler(ResultStore& store, Executor& executor, const Workspace& workspace,
            const std::vector<ScheduledRun>& runs, const ScheduleOptions& options,
            Ingester& ingester, ProgressView& view, StopSignal& stop);

  ScheduleSummary run();

 private:
  using Clock = std::chrono::steady_clock;

  RunPaths paths(const ScheduleEntry& entry) const { return {workspace_.out, entry.run->id}; }
  void look_up(ScheduleEntry& entry);
  bool held_elsewhere(ScheduleEntry& entry);
  void recover(ScheduleEntry& entry, const RunState& state);
  void ingest(const ScheduleEntry& entry);
  std::vector<ScheduleEntry*> claim(const std::vector<ScheduleEntry*>& pack,
                                    std::vector<LiveAttempt::Plan>& plans);
  void begin(const std::vector<ScheduleEntry*>& pack);
  void give_back(const std::vector<LiveAttempt::Plan>& plans, const std::string& why);
  void start_ready();
  void skip_orphans();
  void leave_queue(ScheduleEntry& entry);
  void poll_live();
  void conclude(ScheduleEntry& entry);
  void try_again(ScheduleEntry& entry, const Outcome& outcome);
  void end(ScheduleEntry& entry, const std::string& problem);
  void follow_stop_requests();
  void stop_all();
  SweepStatus status() const;

  ResultStore& store_;
  Executor& executor_;
  const Workspace& workspace_;
  const ScheduleOptions& options_;
  Ingester& ingester_;
  ProgressView& view_;
  StopSignal& stop_;
  std::vector<ScheduleEntry> entries_;
  std::vector<Place> slots_;
  Packs packs_;
  std::exception_ptr error_;
  std::size_t finished_ = 0;
  bool stopping_ = false, killed_ = false;
  Clock::time_point begin_ = Clock::now(), next_ingest_;
};

}  // namespace ablate
