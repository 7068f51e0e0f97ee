#pragma once

#include <functional>
#include <vector>

#include "distributed/communicator.h"
#include "runner/measure/protocol.h"
#include "runner/measure/throughput.h"
#include "runner/train/finals.h"

namespace ablate {

/// What ranks that train together reach.
struct RankTimes {
  std::vector<double> seconds;  ///< of every round of `together`, of the slowest rank
  double scaling = 1.0;         ///< speed together over the sum of the ranks' speeds alone
};

/// Times the same work done by the ranks together (with communication) and by every rank for itself
/// (at the same time as the others, but without them), in turns, so that clocks and temperature of
/// the machine meet both. Every rank gets the same result. Collective.
RankTimes time_on_ranks(Communicator& world, const std::function<void()>& together,
                        const std::function<void()>& alone, const TimingOptions& options,
                        const SecondsClock& clock = steady_seconds);

/// Training steps of the structure under a protocol, on the protocol's device: seconds of a step.
RankTimes time_training_on_ranks(const Structure& structure, const Protocol& protocol,
                                 const TimingOptions& options, Communicator& world);

}  // namespace ablate
