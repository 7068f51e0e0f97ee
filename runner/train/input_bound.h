#pragma once

#include <string>

#include "datasets/stage_clock.h"

namespace ablate {

/// What to say of a run that waits for images for `waited` of its time (0 to 1): which stage its
/// loader threads spent most on, and what helps. Without any stage's time only the wait is told.
std::string input_bound_text(double waited, const StageSeconds& loading);

}  // namespace ablate
