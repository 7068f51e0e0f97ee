#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "runner/train/eval_batches.h"
#include "runner/train/task.h"

namespace ablate {

class Communicator;
class Model;

struct Evaluation {
  std::vector<TaskMetric> metrics;
  /// (n) uint8, 1 = sample was right; equal on all ranks. Undefined where the task knows no such
  /// thing.
  at::Tensor correct;
  nlohmann::json details;  ///< Task::details()
};

/// Sees the batches of an evaluation, on the device, and what the task counted of them.
using EvalObserver = std::function<void(const Batch& batch, const at::Tensor& output)>;

/// How a model in evaluation mode is computed.
class EvalForward {
 public:
  virtual ~EvalForward() = default;
  /// Before each pass over a set: the model's values or its structure may have changed.
  virtual void begin_pass() {}
  /// The output for batch.images, wherever they are; valid until the next call.
  virtual at::Tensor operator()(const Batch& batch) = 0;
};

/// The plain operations, on `device` in `dtype`, as the model is.
std::unique_ptr<EvalForward> make_plain_forward(Model& model, at::ScalarType dtype,
                                                at::Device device);

/// One pass over a set in evaluation mode, all ranks together: sums are reduced, so the result does
/// not depend on the number of ranks beyond rounding of the loss. Restores the module's mode.
/// `communicator` works on `device`, where the forward's outputs are.
Evaluation evaluate(Model& model, EvalForward& forward, const Task& task, EvalBatches& data,
                    std::int64_t samples, at::Device device, Communicator& communicator,
                    const EvalObserver& observer = {});

}  // namespace ablate
