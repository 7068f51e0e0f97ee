#pragma once

#include <memory>

#include "runner/core/drill_fault.h"
#include "runner/train/step_runner.h"

namespace ablate {

/// Steps of a rank that a drill strikes: those of `steps`, and before the one that is due, the
/// fault. `arena` is theirs.
std::unique_ptr<StepRunner> make_drill_steps(std::unique_ptr<StepRunner> steps,
                                             ParameterArena& arena, const DrillFault& fault);

}  // namespace ablate
