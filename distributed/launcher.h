#pragma once

#include <optional>

#include "distributed/communicator.h"

namespace ablate {

/// The number of ranks that the launcher of this process promised, from the environment: mpirun's
/// OMPI_COMM_WORLD_SIZE, else inside an srun step SLURM_STEP_NUM_TASKS or SLURM_NTASKS. Empty when
/// started alone, also in the shell of an allocation (which has SLURM_NTASKS, but no step).
std::optional<int> promised_world_size();

/// Whether this process was started by mpirun or srun (by their environment variables) and is to
/// use MPI: under srun ABLATE_RENDEZVOUS says that it is not, and a single rank that srun gives no
/// process manager needs none.
bool started_by_launcher();

/// Throws TransientError when srun started several ranks and none of the process managers that MPI
/// asks for its peers, as with --mpi=none: MPI itself would end the process, and name another
/// cause.
void check_process_manager();

/// Throws TransientError when the promise differs from the size MPI sees: an MPI that does not
/// speak the launcher's protocol starts n single ranks, each of which would train everything.
void check_world_size(int seen);

/// Throws SpecError when ABLATE_RANKS, which whoever started the ranks may set, is another number:
/// ranks that did not find each other, each of which would train everything.
void check_asked_ranks(int seen);

/// Where to meet when the ranks were started without MPI: RANK and WORLD_SIZE (under srun without
/// them SLURM_PROCID and the step's number of tasks), and as the place either ABLATE_RENDEZVOUS, a
/// folder (shared, and empty when the job starts) or under srun "tcp", or MASTER_ADDR and
/// MASTER_PORT, as torchrun sets them. Empty when started alone or by mpirun or srun. Throws
/// SpecError when a variable is missing or senseless.
std::optional<Rendezvous> rendezvous_of_environment();

/// This rank's number among the ranks on its machine, the one that chooses its device. Collective.
int local_rank(Communicator& world);

}  // namespace ablate
