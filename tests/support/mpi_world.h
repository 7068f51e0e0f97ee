#pragma once

#include "distributed/communicator.h"

namespace ablate::test {

/// The world communicator of a test program under mpirun.
Communicator& mpi_world();

}  // namespace ablate::test
