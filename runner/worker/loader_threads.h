#pragma once

namespace ablate {

class Communicator;

/// How many loader threads a rank can keep busy beside itself: the processors that it may run on
/// and have the time of, divided among the ranks that may run on the same ones and among `runs`
/// runs of this process, without one for the rank's own work; at least 1. Collective.
int spare_loader_threads(Communicator& world, int runs);

}  // namespace ablate
