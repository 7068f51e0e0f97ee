#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "results/ingest.h"
#include "results/store.h"
#include "runner/core/stop.h"
#include "sweeps/executor.h"
#include "sweeps/pack_sizes.h"
#include "sweeps/progress.h"
#include "sweeps/workspace.h"

namespace ablate {

/// A registered run for the scheduler to bring to an end.
struct ScheduledRun {
  std::string id;
  std::string name;  ///< for people: row label and seed
  std::string spec;  ///< content of spec.json
  std::filesystem::path init_file, teacher_file;
  std::int64_t total_steps = 0;
  std::int64_t global_batch = 0;
  std::string shape;                 ///< equal for runs that may share a process
  double estimate_s = 0;             ///< of a whole run; 0: unknown
  std::vector<std::size_t> parents;  ///< earlier runs of the list
};

struct ScheduleOptions {
  Launch launch;
  bool fail_fast = false;  ///< stop everything at the first run that ends without a result
  TrialTimes trial{};      ///< where it is left open how many runs share a process
};

/// How a schedule ended.
struct ScheduleSummary {
  std::size_t done = 0;               ///< runs that are done, those known before included
  std::size_t finished = 0;           ///< of them, by this call
  std::vector<std::string> problems;  ///< a line a run that is not done, and why
  bool interrupted = false;           ///< stopped on request: the same command continues

  bool complete() const { return problems.empty() && !interrupted; }
};

/// Runs everything that is not done, as the database has it (take_up_folders() brings it up to what
/// the folders hold): claims the next run whose parents are done, starts its job,
/// follows it, records the outcome, tries again where that helps:
/// - transient ends (lost node, killed, hang, out of memory) up to `retries` times in a row without
///   a step of progress; an attempt that got further starts the count anew;
/// - failed ones up to `retries_failed` times; diverged ones never.
/// Up to `runs_per_gpu` ready runs of equal shape are started as one process; each stays a run of
/// its own, and ends, fails and is tried again without the others.
/// Runs that a predecessor left running are adopted while their job lives, else ended and tried
/// again. (That no other `ablate` follows them is what the lease of `ingester` says.) The first
/// stop signal asks all ranks to stop at a step boundary, a second Ctrl-C kills them.
ScheduleSummary run_schedule(ResultStore& store, Executor& executor, const Workspace& workspace,
                             const std::vector<ScheduledRun>& runs, const ScheduleOptions& options,
                             Ingester& ingester, ProgressView& view, StopSignal& stop);

}  // namespace ablate
