#include <cmath>

#include "methods/models/ops_resize.h"
#include "runner/core/error.h"
#include "runner/train/dense_inference.h"
#include "runner/train/pixel_cross_entropy.h"
#include "runner/train/task.h"

namespace ablate::train::segmentation {
namespace {

struct Settings {
  double auxiliary_weight = 0.4;
  bool average_all = false;
  std::vector<double> class_weights;
  DenseInference inference;
};

/// Sums of a confusion matrix: pixels of each class that were found, predicted and present.
struct ClassAreas {
  at::Tensor intersection, predicted, present;

  explicit ClassAreas(const at::Tensor& confusion)
      : intersection(confusion.diag()), predicted(confusion.sum(0)), present(confusion.sum(1)) {}

  /// NaN for classes that are neither there nor predicted.
  at::Tensor iou() const { return intersection / (predicted + present - intersection); }
  /// NaN for classes that are not there.
  at::Tensor accuracy() const { return intersection / present; }
  double pixel_accuracy() const {
    return intersection.sum().item<double>() / present.sum().item<double>();
  }
};

/// NaN as null.
nlohmann::json percent_of_classes(const at::Tensor& shares) {
  nlohmann::json list = nlohmann::json::array();
  for (std::int64_t k = 0; k < shares.size(0); ++k) {
    const auto share = shares[k].item<double>();
    list.push_back(std::isnan(share) ? nlohmann::json() : nlohmann::json(100 * share));
  }
  return list;
}

/// A class for each pixel. Scores of smaller maps are brought to the size of the labels. Counts are
/// a confusion matrix (truth, prediction): whole numbers below 2^53, so sums are exact in any
/// order.
class Segmentation final : public Task {
 public:
  Segmentation(Settings settings, const DatasetFacts& data)
      : settings_(std::move(settings)), classes_(data.classes), names_(data.class_names) {}

  at::Tensor loss(const at::Tensor& output, const Batch& batch) const override {
    const at::Tensor& maps = batch.label_maps;
    const at::Tensor scores =
        ops::resize_bilinear(output.scalar_type() == at::kDouble ? output : output.to(at::kFloat),
                             maps.size(1), maps.size(2));
    const at::Tensor counted = maps != int{LabelMap::kIgnore};
    const at::Tensor classes = maps.to(at::kLong) * counted;
    return pixel_cross_entropy(scores, classes, factors(counted, classes, scores.options()));
  }

  at::Tensor auxiliary_loss(const at::Tensor& logits, const Batch& batch) const override {
    return settings_.auxiliary_weight * loss(logits, batch);
  }

  /// The class of each pixel, (B, H, W) int64.
  at::Tensor infer(const Network& network, const Batch& batch) const override {
    return DenseScores(network, batch.images, batch.label_maps.size(1), batch.label_maps.size(2),
                       settings_.inference)
        .labels();
  }

  bool asks_any_size() const override { return true; }

  at::Tensor make_counts() const override { return at::zeros({classes_, classes_}, at::kDouble); }

  at::Tensor count(const at::Tensor& output, const Batch& batch,
                   at::Tensor& counts) const override {
    const at::Tensor counted =
        (batch.label_maps != int{LabelMap::kIgnore}) & (batch.weights > 0).view({-1, 1, 1});
    const std::int64_t cells = classes_ * classes_;
    const at::Tensor cell =
        at::where(counted, batch.label_maps.to(at::kLong) * classes_ + output, cells);
    const at::Tensor sums = at::bincount(cell.flatten(), {}, cells + 1);
    counts += sums.slice(0, 0, cells).view({classes_, classes_});
    return {};
  }

  std::vector<TaskMetric> summarize(const at::Tensor& counts) const override {
    const ClassAreas areas(counts);
    return {{"miou", "%", +1, 100 * areas.iou().nanmean().item<double>()},
            {"macc", "%", +1, 100 * areas.accuracy().nanmean().item<double>()},
            {"aacc", "%", +1, 100 * areas.pixel_accuracy()}};
  }

  nlohmann::json details(const at::Tensor& counts) const override {
    const ClassAreas areas(counts);
    nlohmann::json pixels = nlohmann::json::array();
    for (std::int64_t k = 0; k < classes_; ++k) {
      pixels.push_back(static_cast<std::int64_t>(areas.present[k].item<double>()));
    }
    return {{"classes", names_},
            {"iou", percent_of_classes(areas.iou())},
            {"acc", percent_of_classes(areas.accuracy())},
            {"pixels", std::move(pixels)}};
  }

 private:
  /// Each pixel's share of the mean. An image's mean is its own, whatever lies in the batch beside
  /// it: the loss does not depend on how a batch is cut among ranks and passes.
  at::Tensor factors(const at::Tensor& counted, const at::Tensor& classes,
                     const at::TensorOptions& options) const {
    const auto images = static_cast<double>(counted.size(0));
    at::Tensor weights = counted.to(options.dtype());
    if (settings_.average_all) {
      return weights / (images * static_cast<double>(counted[0].numel()));
    }
    if (!settings_.class_weights.empty()) {
      weights =
          weights * class_weights(options).index_select(0, classes.flatten()).view_as(classes);
    }
    // An image without labels has a mean of zero.
    const at::Tensor sums = weights.sum({1, 2}, /*keepdim=*/true).clamp_min(1e-12);
    return weights / (sums * images);
  }

  /// Brought to the device once: a captured step copies nothing from the host.
  at::Tensor class_weights(const at::TensorOptions& options) const {
    if (!class_weights_.defined() || class_weights_.options().device() != options.device()) {
      class_weights_ = at::tensor(settings_.class_weights, at::kDouble).to(options);
    }
    return class_weights_;
  }

  Settings settings_;
  mutable at::Tensor class_weights_;
  std::int64_t classes_;
  std::vector<std::string> names_;
};

std::unique_ptr<Task> make(Params& params, const DatasetFacts& data) {
  Settings settings;
  settings.auxiliary_weight = params.number("auxiliary_weight", settings.auxiliary_weight, 0, 100,
                                            "weight of an auxiliary head's loss");
  settings.average_all =
      params.choice("average", "valid", {"valid", "all"},
                    "an image's loss is its mean over pixels with a label, or its sum over these "
                    "divided by all pixels (mmsegmentation's avg_non_ignore = False)") == "all";
  settings.class_weights =
      params.numbers("class_weights", {}, 0, 1e6, "weight of each class in the loss; none: all 1");
  const auto weights = static_cast<std::int64_t>(settings.class_weights.size());
  if (weights > 0 && weights != data.classes) {
    params.fail("class_weights",
                cat(weights, " weights; accepted: one for each of ", data.classes, " classes"));
  }
  if (weights > 0 && settings.average_all) {
    params.fail("class_weights", "weights need a mean over labels; accepted: average = \"valid\"");
  }
  settings.inference = DenseInference::read(params);
  return std::make_unique<Segmentation>(std::move(settings), data);
}

const Registry<TaskInfo>::Add added{{
    .name = "segmentation",
    .summary = "a label for each pixel; mean IoU, mean class accuracy and pixel accuracy",
    .semantics = 1,
    .dense = true,
    .make = make,
}};

}  // namespace
}  // namespace ablate::train::segmentation
