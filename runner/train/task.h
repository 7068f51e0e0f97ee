#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "datasets/loader.h"
#include "runner/core/params.h"
#include "runner/core/registry.h"
#include "runner/core/run_spec.h"
#include "runner/torch/torch.h"

namespace ablate {

struct ForwardState;

/// One number of an evaluation.
struct TaskMetric {
  std::string name;  ///< "top1"
  std::string unit;  ///< "%"
  int better;        ///< +1 higher, -1 lower, 0 neither
  double value;
};

/// A model in evaluation: images (B, 3, H, W) to its output.
using Network = std::function<at::Tensor(const at::Tensor& images)>;

/// Loss, metrics and target transforms of one kind of problem. Stateless: evaluation counts are a
/// tensor that is summed over batches and ranks, so metrics are exact for any rank count and never
/// averages of averages.
class Task {
 public:
  virtual ~Task() = default;

  /// Mean loss over the rows of a training batch. `output` as Model::forward gives it.
  virtual at::Tensor loss(const at::Tensor& output, const Batch& batch) const = 0;
  /// The weighted term of a second head that helps training alone (ForwardState::auxiliary_logits).
  virtual at::Tensor auxiliary_loss(const at::Tensor& logits, const Batch& batch) const;

  /// The output that count() takes for a batch in evaluation; may ask the network several times.
  virtual at::Tensor infer(const Network& network, const Batch& batch) const {
    return network(batch.images);
  }
  /// Whether infer() asks the network about images of several sizes.
  virtual bool asks_any_size() const { return false; }
  /// Zeroed float64 counts for an evaluation.
  virtual at::Tensor make_counts() const = 0;
  /// Adds a batch's sums to `counts`, which lie where the batch is, and returns per-row correctness
  /// (B) bool, for per-sample records (undefined where samples are not right or wrong as a whole);
  /// padding rows (weight 0) add nothing.
  virtual at::Tensor count(const at::Tensor& output, const Batch& batch,
                           at::Tensor& counts) const = 0;
  /// Metrics of summed counts, on the host; the first is the headline metric.
  virtual std::vector<TaskMetric> summarize(const at::Tensor& counts) const = 0;
  /// What is kept of a final evaluation besides its metrics, such as numbers of every class; null
  /// for nothing.
  virtual nlohmann::json details(const at::Tensor& /*counts*/) const { return nullptr; }
};

struct TaskInfo {
  static constexpr std::string_view kind = "task";
  std::string_view name, summary;
  int semantics;
  bool dense = false;  ///< about the pixels of images, of data sets and models that are dense too
  std::unique_ptr<Task> (*make)(Params& params, const DatasetFacts& data);
};

/// The task of a spec on a data set. Throws SpecError.
std::unique_ptr<Task> make_task(const Component& task, const DatasetFacts& data);

/// The loss of a training pass that left `output` and `state`.
at::Tensor pass_loss(const Task& task, const at::Tensor& output, const Batch& batch,
                     const ForwardState& state);

}  // namespace ablate
