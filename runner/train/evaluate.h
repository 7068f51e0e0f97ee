#pragma once

#include <vector>

#include "datasets/loader.h"
#include "runner/train/task.h"

namespace ablate {

class Communicator;
class Model;

struct Evaluation {
  std::vector<TaskMetric> metrics;
  at::Tensor correct;  ///< (n) uint8, 1 = sample was right; equal on all ranks
};

/// One pass over a set in evaluation mode, all ranks together: sums are reduced, so the result does
/// not depend on the number of ranks beyond rounding of the loss. Restores the module's mode.
Evaluation evaluate(Model& model, const Task& task, EvalLoader& loader, std::int64_t samples,
                    at::ScalarType dtype, at::Device device, Communicator& communicator);

}  // namespace ablate
