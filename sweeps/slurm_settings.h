#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runner/core/params.h"

namespace ablate {

/// `[launch.slurm]`: what a run asks of Slurm. Empty texts and zeros are left to the site.
struct SlurmSettings {
  std::string partition, account, qos, constraint, reservation, memory;
  std::string time;               ///< of one job, as sbatch's --time: "30", "4:00:00", "1-00:00:00"
  int nodes = 1;                  ///< that share the ranks of a run equally
  int gpus = 0;                   ///< of a run on each node; 0: it runs on CPUs
  int cpus_per_rank = 0;          ///< 0: as many as a rank has threads
  int grace = 120;                ///< seconds from the warning to the end of a job
  std::string launcher = "auto";  ///< auto, srun, mpirun, own
  std::string setup;              ///< shell line before the ranks: "module load openmpi"
  std::vector<std::string> options;  ///< further options of sbatch, as they are
  double look_every = 10;            ///< seconds between two questions to the controller
};

/// Parses `[launch.slurm]`. Throws SpecError with the place of an unknown key or a wrong value.
SlurmSettings parse_slurm(const Value& table);

/// Its keys with defaults, bounds and meaning.
std::vector<ParamHelp> slurm_settings();

/// Seconds of a time as Slurm writes and reads it: "MIN", "MIN:SEC", "H:MIN:SEC", "D-H",
/// "D-H:MIN", "D-H:MIN:SEC". Nothing for any other text ("UNLIMITED").
std::optional<std::int64_t> slurm_seconds(std::string_view text);

/// What sbatch needs to know about `ranks` ranks with so many threads each. Throws SpecError when
/// the ranks cannot be spread evenly over the nodes.
std::vector<std::string> slurm_resources(const SlurmSettings& settings, int ranks, int threads);

}  // namespace ablate
