#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "results/store.h"
#include "runner/core/run_paths.h"
#include "sweeps/executor.h"
#include "sweeps/spool_follower.h"

namespace ablate {

/// One attempt at a run while its job lives: the job, its spool and its clock.
class LiveAttempt {
 public:
  /// What it takes to start one.
  struct Plan {
    RunPaths paths;
    std::string spec;
    JobRequest request;
    std::int64_t total_steps = 0, global_batch = 0;  ///< for those who look on
  };
  /// Prepares the runs' folders (spec, fence, no stop file) and starts their jobs, in one process
  /// when there are several. Throws Error.
  static std::vector<std::unique_ptr<LiveAttempt>> start(Executor& executor,
                                                         const std::vector<Plan>& plans,
                                                         const Place& place);
  /// Follows a job that a predecessor started; nullptr when it is not there any more.
  static std::unique_ptr<LiveAttempt> adopt(Executor& executor, const RunPaths& paths, int attempt);

  int attempt() const { return attempt_; }
  const RunProgress& progress() const { return progress_; }
  bool is_waiting() const { return job_->is_waiting(); }
  std::string queue_name() const { return job_->queue_name(); }
  bool is_withdrawn() const { return job_->is_withdrawn(); }

  /// Looks at the job and its spool; true when the job has ended, or the run in a process that it
  /// shares. Kills the process after `stall_timeout` seconds without a record.
  bool poll(double stall_timeout);
  /// How it ended, once poll() said so: the spooled outcome, else what the exit status tells.
  Outcome outcome() const;

  /// Asks the ranks to stop at a step boundary and to write a checkpoint.
  void ask_to_stop();
  /// Ends the job at once; `cause` as in Outcome.
  void kill(const std::string& cause);
  /// Removes what only a live attempt needs.
  void close();

 private:
  LiveAttempt(RunPaths paths, int attempt, std::unique_ptr<Job> job);

  std::optional<Outcome> outcome_of_others() const;

  RunPaths paths_;
  int attempt_;
  std::unique_ptr<Job> job_;
  SpoolFollower follower_;
  RunProgress progress_;
  std::chrono::steady_clock::time_point last_record_;
  std::optional<ExitStatus> status_;
  std::string killed_for_;
};

/// What an exit status means when no spool says more.
Outcome outcome_of_exit(const ExitStatus& status);

}  // namespace ablate
