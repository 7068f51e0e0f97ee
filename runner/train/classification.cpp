#include "methods/models/ops.h"
#include "runner/train/task.h"

namespace ablate::train::classification {
namespace {

/// Places of the sums in the counts tensor.
enum Count : std::int64_t { kSamples, kTop1, kTop5, kLoss, kCounts };

/// Single-label classification with label smoothing inside the (mixed) soft target:
///   t = mix * smooth(label) + (1 - mix) * smooth(other),  loss = -mean_b sum_k t log softmax(z).
class Classification final : public Task {
 public:
  explicit Classification(double label_smoothing) : label_smoothing_(label_smoothing) {}

  at::Tensor loss(const at::Tensor& output, const Batch& batch) const override {
    return ops::cross_entropy(class_logits(output), {.labels = batch.labels,
                                                     .other = batch.other_labels,
                                                     .mix = batch.mix,
                                                     .smoothing = label_smoothing_});
  }

  at::Tensor make_counts() const override { return at::zeros({kCounts}, at::kDouble); }

  at::Tensor count(const at::Tensor& output, const Batch& batch,
                   at::Tensor& counts) const override {
    const at::Tensor weights = batch.weights.to(at::kDouble);
    const at::Tensor log_probs = at::log_softmax(class_logits(output), -1);
    const at::Tensor target_score = log_probs.gather(1, batch.labels.unsqueeze(1));
    // Rank of the target among the classes; ties count against it, so a constant output scores 0,
    // and NaN gives -1.
    const at::Tensor rank = (log_probs >= target_score).sum(1) - 1;
    const at::Tensor nll = -target_score.squeeze(1).to(at::kDouble);
    const at::Tensor correct = rank == 0;
    counts[kSamples] += weights.sum();
    counts[kTop1] += (weights * correct).sum();
    counts[kTop5] += (weights * ((rank >= 0) & (rank < 5))).sum();
    counts[kLoss] += (weights * nll).sum();
    return correct;
  }

  std::vector<TaskMetric> summarize(const at::Tensor& counts) const override {
    const auto sums = counts.accessor<double, 1>();
    const double samples = sums[kSamples];
    return {{"top1", "%", +1, 100.0 * sums[kTop1] / samples},
            {"top5", "%", +1, 100.0 * sums[kTop5] / samples},
            {"loss", "nat", -1, sums[kLoss] / samples}};
  }

 private:
  /// (B, K). Two heads (B, 2, K): training scores the class head here (the distillation head has a
  /// loss of its own); evaluation receives the mean already.
  static at::Tensor class_logits(const at::Tensor& output) {
    return output.dim() == 3 ? output.select(1, 0) : output;
  }

  double label_smoothing_;
};

const Registry<TaskInfo>::Add added{{
    .name = "classification",
    .summary = "one label an image; top-1, top-5 and cross-entropy",
    .semantics = 1,
    .make = [](Params& params, const DatasetFacts& /*data*/) -> std::unique_ptr<Task> {
      return std::make_unique<Classification>(params.number(
          "label_smoothing", 0.0, 0.0, 0.99, "share of the target spread over all classes"));
    },
}};

}  // namespace
}  // namespace ablate::train::classification
