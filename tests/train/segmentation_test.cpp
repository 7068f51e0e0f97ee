#include <cmath>
#include <map>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/train/pixel_cross_entropy.h"
#include "runner/train/task.h"
#include "tests/core/expect_error.h"

namespace ablate::test {
namespace {

constexpr int kNone = LabelMap::kIgnore;

std::unique_ptr<Task> segmentation(std::int64_t classes, std::string_view settings = "") {
  const Value table = parse_toml(settings, "sweep.toml");
  Params params(table, "task");
  auto task = Registry<TaskInfo>::get("segmentation")
                  .make(params, {.classes = classes, .normalization = {}, .dense = true});
  params.finish();
  return task;
}

/// A batch of label maps, one image.
Batch mapped(const std::vector<std::vector<int>>& rows) {
  Batch batch;
  std::vector<std::uint8_t> values;
  for (const auto& row : rows) values.insert(values.end(), row.begin(), row.end());
  const auto height = static_cast<std::int64_t>(rows.size());
  batch.label_maps = at::tensor(values, at::kByte).view({1, height, -1});
  batch.weights = at::ones({1}, at::kFloat);
  return batch;
}

/// What the task made of an image.
at::Tensor predicted(const std::vector<std::vector<std::int64_t>>& prediction) {
  std::vector<std::int64_t> values;
  for (const auto& row : prediction) values.insert(values.end(), row.begin(), row.end());
  return at::tensor(values, at::kLong).view({1, static_cast<std::int64_t>(prediction.size()), -1});
}

std::map<std::string, double> metrics_of(const Task& task, const at::Tensor& counts) {
  std::map<std::string, double> metrics;
  for (const TaskMetric& metric : task.summarize(counts)) {
    EXPECT_EQ(metric.unit, "%");
    EXPECT_EQ(metric.better, 1);
    metrics[metric.name] = metric.value;
  }
  return metrics;
}

const std::vector<std::vector<int>> kTruth{{0, 0, 1}, {1, 2, kNone}};
const std::vector<std::vector<std::int64_t>> kPrediction{{0, 1, 1}, {1, 1, 2}};

// I = 1, 2, 0; P = 1, 4, 0; G = 2, 2, 1 by hand.
TEST(SegmentationMetrics, ByHand) {
  for (const std::int64_t classes : {3, 4}) {  // a class absent from both changes nothing
    const auto task = segmentation(classes);
    at::Tensor counts = task->make_counts();
    EXPECT_FALSE(task->count(predicted(kPrediction), mapped(kTruth), counts).defined());
    const auto metrics = metrics_of(*task, counts);
    EXPECT_NEAR(metrics.at("miou"), 100.0 / 3, 1e-12);
    EXPECT_NEAR(metrics.at("macc"), 50.0, 1e-12);
    EXPECT_NEAR(metrics.at("aacc"), 60.0, 1e-12);
    EXPECT_EQ(task->summarize(counts).front().name, "miou");
  }
}

TEST(SegmentationMetrics, AClassThatIsOnlyPredictedCountsAsZeroIou) {
  const auto task = segmentation(3);
  at::Tensor counts = task->make_counts();
  task->count(predicted({{0, 2}}), mapped({{0, 0}}), counts);
  const auto metrics = metrics_of(*task, counts);
  EXPECT_NEAR(metrics.at("miou"), (50.0 + 0.0) / 2, 1e-12) << "class 1 is nowhere, 2 is wrong";
  EXPECT_NEAR(metrics.at("macc"), 50.0, 1e-12) << "class 2 has no pixel to find";
}

TEST(SegmentationMetrics, AnImageWithoutLabelsAddsNothing) {
  const auto task = segmentation(3);
  at::Tensor counts = task->make_counts();
  task->count(predicted({{0, 1}}), mapped({{kNone, kNone}}), counts);
  EXPECT_EQ(counts.sum().item<double>(), 0.0);
  Batch padding = mapped({{0, 1}});
  padding.weights.zero_();
  task->count(predicted({{0, 1}}), padding, counts);
  EXPECT_EQ(counts.sum().item<double>(), 0.0);
}

// Areas are added up before they are divided: one image with IoU 1 and 0, one with 1/2 and 1/2.
TEST(SegmentationMetrics, AreOfTheSetNotMeansOfImages) {
  const auto task = segmentation(2);
  at::Tensor counts = task->make_counts();
  task->count(predicted({{0, 0, 0, 0}}), mapped({{0, 0, 0, 0}}), counts);
  task->count(predicted({{0, 1}}), mapped({{1, 1}}), counts);
  // Class 0: I = 4, U = 5; class 1: I = 1, U = 2.
  EXPECT_NEAR(metrics_of(*task, counts).at("miou"), 100 * (4.0 / 5 + 1.0 / 2) / 2, 1e-12);
  const auto once = [&](const auto& prediction, const auto& truth) {
    at::Tensor own = task->make_counts();
    task->count(predicted(prediction), mapped(truth), own);
    return metrics_of(*task, own).at("miou");
  };
  const double first = once(std::vector<std::vector<std::int64_t>>{{0, 0, 0, 0}},
                            std::vector<std::vector<int>>{{0, 0, 0, 0}});
  const double second =
      once(std::vector<std::vector<std::int64_t>>{{0, 1}}, std::vector<std::vector<int>>{{1, 1}});
  EXPECT_GT(std::abs(metrics_of(*task, counts).at("miou") - (first + second) / 2), 1.0);
}

// The network's best class at each place, brought to the size of the labels.
TEST(SegmentationMetrics, AsksTheNetworkForTheWholeImage) {
  const auto task = segmentation(2);
  Batch batch = mapped({{0, 0, 1, 1}, {0, 0, 1, 1}});
  batch.images = at::zeros({1, 3, 6, 12});
  const Network network = [](const at::Tensor& images) {
    EXPECT_EQ(images.sizes(), (std::vector<std::int64_t>{1, 3, 6, 12}));
    const at::Tensor right = at::tensor(std::vector<double>{-1, 1}, at::kDouble);
    return at::stack({-right, right}).view({1, 2, 1, 2});
  };
  const at::Tensor classes = task->infer(network, batch);
  EXPECT_TRUE(at::equal(classes, batch.label_maps.to(at::kLong)));
}

TEST(SegmentationMetrics, DetailsNameEveryClass) {
  const auto task = segmentation(4);
  at::Tensor counts = task->make_counts();
  task->count(predicted(kPrediction), mapped(kTruth), counts);
  const nlohmann::json details = task->details(counts);
  EXPECT_EQ(details.at("iou"), (nlohmann::json{50.0, 50.0, 0.0, nullptr}));
  EXPECT_EQ(details.at("acc"), (nlohmann::json{50.0, 100.0, 0.0, nullptr}));
  EXPECT_EQ(details.at("pixels"), (nlohmann::json{2, 2, 1, 0}));
}

// Three classes, scores of zero: every labelled pixel costs ln 3.
TEST(SegmentationLoss, MeansOverLabelledOrAllPixels) {
  const at::Tensor zero = at::zeros({1, 3, 2, 2}, at::kDouble);
  const Batch batch = mapped({{0, 1}, {kNone, kNone}});
  EXPECT_NEAR(segmentation(3)->loss(zero, batch).item<double>(), 1.098612, 1e-6);
  EXPECT_NEAR(segmentation(3, "average = 'all'")->loss(zero, batch).item<double>(), 0.549306, 1e-6);
}

TEST(SegmentationLoss, EqualsTheFrameworksOnOneImage) {
  const at::Tensor scores = (at::arange(60, at::kDouble) * 1.3).sin().view({1, 3, 4, 5});
  Batch batch =
      mapped({{0, 1, 2, 2, 0}, {kNone, 1, 1, 0, 2}, {2, 2, kNone, 0, 0}, {1, 1, 1, 1, 1}});
  const at::Tensor labels = batch.label_maps.to(at::kLong);
  const double plain =
      at::cross_entropy_loss(scores, labels, {}, at::Reduction::Mean, kNone).item<double>();
  EXPECT_NEAR(segmentation(3)->loss(scores, batch).item<double>(), plain, 1e-13);
  const at::Tensor weights = at::tensor(std::vector<double>{0.5, 2.0, 1.25}, at::kDouble);
  const double weighted =
      at::cross_entropy_loss(scores, labels, weights, at::Reduction::Mean, kNone).item<double>();
  EXPECT_NEAR(
      segmentation(3, "class_weights = [0.5, 2.0, 1.25]")->loss(scores, batch).item<double>(),
      weighted, 1e-13);
}

TEST(SegmentationLoss, BringsScoresToTheSizeOfTheLabels) {
  const at::Tensor small = (at::arange(12, at::kDouble) * 0.7).cos().view({1, 3, 2, 2});
  const Batch batch = mapped({{0, 1, 2, 2}, {2, 1, 1, 0}, {2, 2, 0, 0}, {1, 1, 1, kNone}});
  const at::Tensor large = at::upsample_bilinear2d(small, {4, 4}, false);
  const auto task = segmentation(3);
  EXPECT_NEAR(task->loss(small, batch).item<double>(), task->loss(large, batch).item<double>(),
              1e-13);
  EXPECT_NEAR(
      segmentation(3, "auxiliary_weight = 0.4")->auxiliary_loss(small, batch).item<double>(),
      0.4 * task->loss(small, batch).item<double>(), 1e-13);
}

// However a batch is cut, its loss is the mean of the parts' losses, also where images have
// different numbers of labelled pixels.
TEST(SegmentationLoss, OfABatchIsTheMeanOfItsParts) {
  const at::Tensor scores = (at::arange(48, at::kDouble) * 2.1).sin().view({4, 3, 2, 2});
  Batch whole;
  whole.label_maps = at::tensor(std::vector<std::uint8_t>{0, 1, 2, 0, 255, 255, 255, 2, 1, 255, 1,
                                                          1, 255, 255, 255, 255},
                                at::kByte)
                         .view({4, 2, 2});
  for (const char* settings : {"average = 'valid'", "average = 'all'"}) {
    const auto task = segmentation(3, settings);
    double parts = 0;
    for (std::int64_t i = 0; i < 4; ++i) {
      Batch one;
      one.label_maps = whole.label_maps.slice(0, i, i + 1);
      parts += task->loss(scores.slice(0, i, i + 1), one).item<double>() / 4;
    }
    EXPECT_NEAR(task->loss(scores, whole).item<double>(), parts, 1e-13) << settings;
  }
}

TEST(PixelCrossEntropy, GradientEqualsFiniteDifferences) {
  at::Tensor scores = (at::arange(36, at::kDouble) * 1.7).sin().view({2, 3, 2, 3});
  const at::Tensor classes = at::arange(12, at::kLong).remainder(3).view({2, 2, 3});
  const at::Tensor factors = (at::arange(12, at::kDouble) * 0.9).cos().square().view({2, 2, 3});
  scores.requires_grad_();
  pixel_cross_entropy(scores, classes, factors).backward();
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-6;
  for (std::int64_t i = 0; i < scores.numel(); ++i) {
    const auto moved = [&](double by) {
      at::Tensor other = scores.clone();
      other.view(-1)[i] += by;
      return pixel_cross_entropy(other, classes, factors).item<double>();
    };
    EXPECT_NEAR(scores.grad().view(-1)[i].item<double>(),
                (moved(kStep) - moved(-kStep)) / (2 * kStep), 1e-8);
  }
}

TEST(PixelCrossEntropy, GradientIsZeroWhereNothingCounts) {
  const auto task = segmentation(3);
  at::Tensor scores = at::randn({1, 3, 2, 2}, at::kDouble).requires_grad_();
  task->loss(scores, mapped({{kNone, 1}, {kNone, kNone}})).backward();
  EXPECT_GT(scores.grad().select(3, 1).select(2, 0).abs().max().item<double>(), 0.0);
  EXPECT_EQ(scores.grad().select(3, 0).abs().max().item<double>(), 0.0);
  at::Tensor none = at::randn({1, 3, 2, 2}, at::kDouble).requires_grad_();
  const at::Tensor loss = task->loss(none, mapped({{kNone, kNone}, {kNone, kNone}}));
  loss.backward();
  EXPECT_EQ(loss.item<double>(), 0.0);
  EXPECT_EQ(none.grad().abs().max().item<double>(), 0.0);
}

TEST(SegmentationTask, RefusesSettingsThatDoNotFit) {
  const auto refusal = [](std::string_view settings) {
    return message_of<SpecError>([&] { segmentation(3, settings); });
  };
  EXPECT_NE(refusal("class_weights = [1.0, 2.0]").find("one for each of 3"), std::string::npos);
  EXPECT_NE(refusal("class_weights = [1.0, 2.0, 3.0]\naverage = 'all'").find("average"),
            std::string::npos);
  EXPECT_NE(refusal("average = 'some'").find("valid"), std::string::npos);
}

}  // namespace
}  // namespace ablate::test
