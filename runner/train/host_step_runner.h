#pragma once

#include <memory>

#include "runner/train/step_runner.h"

namespace ablate {

/// Steps on the CPU, each computed within begin().
std::unique_ptr<StepRunner> make_host_step_runner(StepParts parts, at::ScalarType dtype);

}  // namespace ablate
