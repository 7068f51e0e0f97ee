#pragma once

#include <memory>

#include "methods/models/edit.h"
#include "runner/train/evaluate.h"
#include "runner/train/gemm_record.h"

namespace ablate {

/// Evaluation with fused operations on the CUDA device that holds the surgeon's model, by
/// DeviceForward: one captured graph for each structure. `record` outlives the result. Only in
/// builds with CUDA.
std::unique_ptr<EvalForward> make_device_forward(Surgeon& surgeon, GemmRecord& record);

}  // namespace ablate
