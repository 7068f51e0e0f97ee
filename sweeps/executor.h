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
#include "sweeps/workspace.h"

namespace ablate {

/// One attempt at one resolved run.
struct JobRequest {
  std::string run_id;
  int attempt = 1;                  ///< counts from 1
  std::int64_t fence = 1;           ///< rises with every attempt
  std::filesystem::path init_file;  ///< start weights that the spec names by content; or empty
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
  /// What a later `ablate` needs to find the job again.
  virtual nlohmann::json handle() const = 0;
};

/// Starts jobs. Stopping is not its business: a run is stopped by its stop file, everywhere alike.
class Executor {
 public:
  virtual ~Executor() = default;

  /// Starts a job for each request, all in one process when there are several; its output goes to
  /// the attempts' logs. Throws Error when it cannot be started.
  virtual std::vector<std::unique_ptr<Job>> start(const std::vector<JobRequest>& requests,
                                                  const Place& place) = 0;
  /// The job behind a handle when it still runs, else nullptr.
  virtual std::unique_ptr<Job> adopt(const nlohmann::json& handle) = 0;
  /// Where jobs run beside each other. Throws SpecError when there is no such place.
  virtual std::vector<Place> places() const = 0;
};

/// Runs jobs on this machine: `mpirun` in a process group of its own, or the rank program alone
/// when there is one rank. With GPUs a place is as many of them as a run has ranks; else it is the
/// cores of one of `jobs` concurrent runs.
std::unique_ptr<Executor> make_local_executor(const Launch& launch, const Workspace& workspace);

/// The command line of a job and what it adds to the environment; apart for tests and `show`.
ProcessOptions local_command(const std::vector<JobRequest>& requests, const Place& place,
                             const Launch& launch, const Workspace& workspace);

/// `jobs` disjoint parts of `cpus`, as equal as they can be. With one job the part is empty: no
/// binding. Throws SpecError when there are more jobs than cores.
std::vector<std::vector<int>> divide_cpus(const std::vector<int>& cpus, int jobs);

}  // namespace ablate
