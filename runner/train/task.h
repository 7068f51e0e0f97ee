#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/loader.h"
#include "runner/core/params.h"
#include "runner/core/registry.h"
#include "runner/torch/torch.h"

namespace ablate {

/// One number of an evaluation.
struct TaskMetric {
  std::string name;  ///< "top1"
  std::string unit;  ///< "%"
  int better;        ///< +1 higher, -1 lower, 0 neither
  double value;
};

/// Loss, metrics and target transforms of one kind of problem. Stateless: evaluation counts are a
/// tensor that is summed over batches and ranks, so metrics are exact for any rank count and never
/// averages of averages.
class Task {
 public:
  virtual ~Task() = default;

  /// Mean loss over the rows of a training batch. `output` as Model::forward gives it.
  virtual at::Tensor loss(const at::Tensor& output, const Batch& batch) const = 0;

  /// Zeroed float64 counts for an evaluation.
  virtual at::Tensor make_counts() const = 0;
  /// Adds a batch's sums to `counts`, which lie where the batch is, and returns per-row correctness
  /// (B) bool, for per-sample records; padding rows (weight 0) add nothing.
  virtual at::Tensor count(const at::Tensor& output, const Batch& batch,
                           at::Tensor& counts) const = 0;
  /// Metrics of summed counts, on the host; the first is the headline metric.
  virtual std::vector<TaskMetric> summarize(const at::Tensor& counts) const = 0;
};

struct TaskInfo {
  static constexpr std::string_view kind = "task";
  std::string_view name, summary;
  int semantics;
  std::unique_ptr<Task> (*make)(Params& params);
};

}  // namespace ablate
