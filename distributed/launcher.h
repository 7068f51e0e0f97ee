#pragma once

#include <optional>

namespace ablate {

/// The number of ranks that the launcher of this process promised, from the environment: mpirun's
/// OMPI_COMM_WORLD_SIZE, else inside an srun step SLURM_STEP_NUM_TASKS or SLURM_NTASKS. Empty when
/// started alone, also in the shell of an allocation (which has SLURM_NTASKS, but no step).
std::optional<int> promised_world_size();

/// Whether this process was started by mpirun or srun (by their environment variables).
bool started_by_launcher();

/// Throws TransientError when the promise differs from the size MPI sees: an MPI that does not
/// speak the launcher's protocol starts n single ranks, each of which would train everything.
void check_world_size(int seen);

}  // namespace ablate
