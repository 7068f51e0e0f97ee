#pragma once

#include "methods/ela_controller.h"
#include "methods/ela_statistics.h"
#include "methods/method.h"

namespace ablate::methods::ela {

/// Tells the run what the epoch before said (null: nothing was measured) and what was decided from
/// it (null: nothing yet). Event "ela_epoch", with an entry for each candidate:
///
///   {"phase": "warm-up" | "search" | "freeze", "blocks": [1, 2, ..], "stages": [0, 0, ..],
///    "skipped": [0, 1, ..], "flips": 1,
///    "divergence": [..], "deviation": [..]   of the epoch over samples and heads
///    "average": [..]                         of epochs, which the decision looked at
///    "z": [..], "score": [..]                of the decision; null: not looked at
///    "fits": [{"alpha": .., "beta": .., "tau": ..}],
///    "profiles": [[[..]]]}                   mean rows, or gates, of each stage's blocks
///
/// and metrics ela/skipped, ela/flips, ela/alpha, ela/beta, ela/tau, ela/divergence/<block>.
void report(TrainContext& context, const Controller& controller, const EpochStatistics* statistics,
            const Decision* decision, bool last);

}  // namespace ablate::methods::ela
