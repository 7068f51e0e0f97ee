#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runner/core/params.h"
#include "sweeps/slurm_settings.h"

namespace ablate {

/// `[launch]`: how runs are started. Facts of an attempt, never part of an identity.
struct Launch {
  std::string executor = "mpirun";
  int ranks = 1;
  int threads = 1;                      ///< a rank
  int jobs = 1;                         ///< concurrent runs
  int retries = 2;                      ///< further attempts after a failure of the machine
  int retries_failed = 0;               ///< further attempts after a failure of the run itself
  int micro_batch = 0;                  ///< images a rank takes at once; 0: its whole slice
  int loader_threads = -1;              ///< a rank; -1: the rank finds out
  std::string device = "auto";          ///< auto, cpu, cuda
  bool nccl_nvls = false;               ///< NCCL may reduce in NVLink switches
  double nccl_timeout = 120;            ///< seconds; then a step on several devices hangs
  std::optional<int> runs_per_gpu = 1;  ///< that share a process; nothing: as many as pay
  double checkpoint_every = 300;        ///< seconds
  int checkpoint_steps = 0;             ///< optimizer steps; 0: by time alone
  int keep_checkpoints = 2;
  double stall_timeout = 1800;  ///< seconds without a record before a run counts as hung
  int bench_batch = 64;         ///< images of a repetition in bench jobs
  double bench_seconds = 10;    ///< timed part of a bench job
  int bench_memory_mib = 1024;  ///< budget of the column max_batch
  SlurmSettings slurm;          ///< where the executor is "slurm"
};

/// Parses a `[launch]` table. Throws SpecError with the place of an unknown key or a wrong value.
Launch parse_launch(const Value& table);

/// Its keys with defaults, bounds and meaning.
std::vector<ParamHelp> launch_settings();

}  // namespace ablate
