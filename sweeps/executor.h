#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "runner/core/process.h"
#include "sweeps/launch.h"
#include "sweeps/slurm_script.h"
#include "sweeps/workspace.h"

namespace ablate {

/// One attempt at one resolved run.
struct JobRequest {
  std::string run_id;
  int attempt = 1;         ///< counts from 1
  std::int64_t fence = 1;  ///< rises with every attempt
  // Weights that the spec names by content; or empty.
  std::filesystem::path init_file{}, teacher_file{};
};

/// Where one job at a time may run.
struct Place {
  std::vector<int> cpus{};      ///< on these only; empty: on all of ours
  std::string gpus{};           ///< for CUDA_VISIBLE_DEVICES; empty: not set
  std::uint64_t gpu_bytes = 0;  ///< memory of one of them; 0: none, or unknown
};

/// A process group that works on a run, started by us or by a predecessor.
class Job {
 public:
  virtual ~Job() = default;

  /// How it ended, once it has. `code` is -1 when nobody can say (a predecessor's job, or a
  /// launcher that was ended itself): the spooled outcome then decides alone.
  virtual std::optional<ExitStatus> poll() = 0;
  /// Ends it now, ranks included. A checkpoint is not waited for.
  virtual void kill() = 0;
  /// Whether runs of others are still at work in its process: this one's outcome does not end it.
  virtual bool is_shared() const = 0;
  /// Beside the stop file, which only ranks at work can see.
  virtual void ask_to_stop() {}
  /// Whether it waits in a queue, where silence means nothing.
  virtual bool is_waiting() const { return false; }
  /// Whether it is there and may not go on for a while: silence means nothing then, either.
  virtual bool is_suspended() const { return false; }
  /// The number it has there; empty where there is no queue.
  virtual std::string queue_name() const { return ""; }
  /// Whether somebody took it out of the queue, or ended it there, who was not us.
  virtual bool is_withdrawn() const { return false; }
  /// What a later `ablate` needs to find the job again.
  virtual nlohmann::json handle() const = 0;
};

/// Starts jobs. Stopping is not its business: a run is stopped by its stop file, everywhere alike.
class Executor {
 public:
  virtual ~Executor() = default;

  /// The runs that may be started from now on.
  virtual void expect(const std::vector<std::string>& /*run_ids*/) {}
  /// Starts a job for each request, all in one process when there are several; its output goes to
  /// the attempts' logs. Throws Error when it cannot be started.
  virtual std::vector<std::unique_ptr<Job>> start(const std::vector<JobRequest>& requests,
                                                  const Place& place) = 0;
  /// The job behind a handle when it still runs, else nullptr.
  virtual std::unique_ptr<Job> adopt(const nlohmann::json& handle) = 0;
  /// Where jobs run beside each other. Throws SpecError when there is no such place.
  virtual std::vector<Place> places() const = 0;
  /// How many jobs run at a time, of so many places.
  virtual std::size_t at_a_time(std::size_t places) const { return places; }
  /// What there is to tell since the last call, a line each.
  virtual std::vector<std::string> take_notes() { return {}; }
};

/// What `[launch] executor` names. Throws Error with the fix when it cannot work here.
std::unique_ptr<Executor> make_executor(const Launch& launch, const Workspace& workspace);

/// Runs jobs on this machine: `mpirun` in a process group of its own, or the rank program alone
/// when there is one rank. With GPUs a place is as many of them as a run has ranks; else it is the
/// cores of one of `jobs` concurrent runs.
std::unique_ptr<Executor> make_local_executor(const Launch& launch, const Workspace& workspace);

/// Runs jobs as elements of one job array of a Slurm cluster that shares the output folder. Every
/// run has its element from the start, held until the run may begin and put back into the queue
/// when it is to go on; the sweep's own state says which, never Slurm's.
std::unique_ptr<Executor> make_slurm_executor(const Launch& launch, const Workspace& workspace);

/// What the element of a run is told; apart for tests and `doctor`.
SlurmTicket slurm_ticket(const std::vector<JobRequest>& requests, const Launch& launch,
                         const Workspace& workspace);

/// The command line of a job and what it adds to the environment; apart for tests and `show`.
ProcessOptions local_command(const std::vector<JobRequest>& requests, const Place& place,
                             const Launch& launch, const Workspace& workspace);

/// `jobs` disjoint parts of `cpus`, as equal as they can be. With one job the part is empty: no
/// binding. Throws SpecError when there are more jobs than cores.
std::vector<std::vector<int>> divide_cpus(const std::vector<int>& cpus, int jobs);

}  // namespace ablate
