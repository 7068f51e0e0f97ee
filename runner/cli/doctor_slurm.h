#pragma once

#include <string>
#include <vector>

#include "sweeps/workspace.h"

namespace ablate {

enum class Verdict { Good, Note, Bad };

/// One thing that `doctor` looked at.
struct Finding {
  Verdict verdict;
  std::string what, found, fix;
};

using Findings = std::vector<Finding>;

/// Whether sweeps can run on this Slurm cluster: commands, controller, and a job of two ranks that
/// tries srun with PMIx, mpirun and srun without MPI in turn and leaves what worked for the sweeps
/// of this output folder.
void check_slurm(const Workspace& workspace, const std::vector<std::string>& sbatch_options,
                 Findings& findings);

}  // namespace ablate
