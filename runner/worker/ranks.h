#pragma once

#include <functional>

namespace ablate {

class Communicator;

/// Runs `body` as one rank of the job that mpirun or srun started, of the ranks that meet as the
/// environment says (rendezvous_of_environment()), or as the only rank. Returns its result; under a
/// launcher exceptions are reported here, inside the life of the session, and ones
/// that other ranks may not share end the whole job.
int run_as_rank(const std::function<int(Communicator& world)>& body);

}  // namespace ablate
