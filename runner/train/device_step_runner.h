#pragma once

#include <memory>

#include "runner/train/gemm_record.h"
#include "runner/train/step_runner.h"

namespace ablate {

/// Steps on the CUDA device that holds the arena, by DeviceStep. `fused` as TrainingOptions has it;
/// `record` outlives the runner. Only in builds with CUDA.
std::unique_ptr<StepRunner> make_device_step_runner(StepParts parts, bool fused,
                                                    GemmRecord& record);

}  // namespace ablate
