#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/train/distillation.h"
#include "runner/train/task.h"
#include "tests/support/models.h"

// Loss and counts of the classification task, and the distillation term; goldens computed by
// PyTorch.

namespace ablate::test {
namespace {

std::unique_ptr<Task> classification(double label_smoothing) {
  const Value table = parse_toml(cat("label_smoothing = ", label_smoothing), "test");
  Params params(table, "task");
  auto task = Registry<TaskInfo>::get("classification").make(params, {});
  params.finish();
  return task;
}

at::Tensor row(std::vector<double> values) { return at::tensor(values, at::kDouble).unsqueeze(0); }

Batch labelled(std::vector<std::int64_t> labels) {
  Batch batch;
  batch.labels = at::tensor(labels, at::kLong);
  batch.weights = at::ones({batch.labels.size(0)});
  return batch;
}

TEST(ClassificationLoss, Golden) {
  const at::Tensor logits = row({2, 1, 0.1});
  EXPECT_NEAR(classification(0.1)->loss(logits, labelled({0})).item<double>(), 0.5136966, 1e-7);
  Batch mixed = labelled({0});
  mixed.other_labels = at::tensor({2}, at::kLong);
  mixed.mix = at::tensor({0.7}, at::kDouble);
  EXPECT_NEAR(classification(0.1)->loss(logits, mixed).item<double>(), 1.0266967, 1e-7);
}

/// -sum_k t_k log softmax(z)_k with t = (1 - s) onehot + s / K, written as a sum over classes.
double cross_entropy_of_row(const at::Tensor& logits, double smoothing,
                            const std::vector<std::pair<std::int64_t, double>>& labels) {
  const std::int64_t classes = logits.size(0);
  double total = 0;
  for (std::int64_t k = 0; k < classes; ++k) total += std::exp(logits[k].item<double>());
  double loss = 0;
  for (std::int64_t k = 0; k < classes; ++k) {
    double target = 0;
    for (const auto& [label, weight] : labels) {
      target +=
          weight * ((label == k ? 1 - smoothing : 0) + smoothing / static_cast<double>(classes));
    }
    loss -= target * (logits[k].item<double>() - std::log(total));
  }
  return loss;
}

TEST(ClassificationLoss, IsTheMeanOfSoftCrossEntropies) {
  const at::Tensor logits = (at::arange(35, at::kDouble) * 1.7).sin().view({5, 7}) * 3;
  const std::vector<std::int64_t> own{0, 6, 3, 3, 2}, other{2, 3, 3, 6, 0};
  const std::vector<double> mix{1.0, 0.25, 0.5, 0.0, 0.9375};
  Batch batch = labelled(own);
  batch.other_labels = at::tensor(other, at::kLong);
  batch.mix = at::tensor(mix, at::kDouble);
  for (const double smoothing : {0.0, 0.1, 0.4}) {
    double plain = 0, mixed = 0;
    for (std::size_t i = 0; i < own.size(); ++i) {
      const at::Tensor z = logits[static_cast<std::int64_t>(i)];
      plain += cross_entropy_of_row(z, smoothing, {{own[i], 1.0}}) / 5;
      mixed += cross_entropy_of_row(z, smoothing, {{own[i], mix[i]}, {other[i], 1 - mix[i]}}) / 5;
    }
    const auto task = classification(smoothing);
    EXPECT_NEAR(task->loss(logits, labelled(own)).item<double>(), plain, 1e-13);
    EXPECT_NEAR(task->loss(logits, batch).item<double>(), mixed, 1e-13);
  }
}

TEST(ClassificationLoss, OfTwoHeadsIsThatOfTheClassHead) {
  const at::Tensor logits = (at::arange(24, at::kDouble) * 1.3).sin().view({3, 2, 4});
  const Batch batch = labelled({0, 3, 1});
  EXPECT_EQ(classification(0.1)->loss(logits, batch).item<double>(),
            classification(0.1)->loss(logits.select(1, 0), batch).item<double>());
}

/// The metrics by name after one batch.
std::map<std::string, double> metrics_of(const at::Tensor& logits, const Batch& batch) {
  const auto task = classification(0.1);
  at::Tensor counts = task->make_counts();
  task->count(logits, batch, counts);
  std::map<std::string, double> metrics;
  for (const TaskMetric& metric : task->summarize(counts)) metrics[metric.name] = metric.value;
  return metrics;
}

TEST(ClassificationCounts, AreThoseOfTheSortedScores) {
  const at::Tensor logits = (at::arange(60 * 9, at::kDouble) * 2.1).sin().view({60, 9});
  std::vector<std::int64_t> labels;
  int first = 0, among_five = 0;
  double loss = 0;
  for (std::int64_t i = 0; i < 60; ++i) {
    labels.push_back(i * 5 % 9);
    const at::Tensor order = logits[i].argsort(-1, /*descending=*/true);
    for (std::int64_t place = 0; place < 5; ++place) {
      const bool hit = order[place].item<std::int64_t>() == labels.back();
      among_five += hit ? 1 : 0;
      first += hit && place == 0 ? 1 : 0;
    }
    loss += cross_entropy_of_row(logits[i], 0.0, {{labels.back(), 1.0}});
  }
  const auto metrics = metrics_of(logits, labelled(labels));
  EXPECT_DOUBLE_EQ(metrics.at("top1"), 100.0 * first / 60);
  EXPECT_DOUBLE_EQ(metrics.at("top5"), 100.0 * among_five / 60);
  EXPECT_NEAR(metrics.at("loss"), loss / 60, 1e-12) << "without smoothing";
  EXPECT_GT(first, 0);
  EXPECT_GT(among_five, first);
}

TEST(ClassificationCounts, PaddingAddsNothingAndRowsTellWhatWasRight) {
  const at::Tensor logits = at::eye(6, at::kDouble);
  Batch batch = labelled({0, 1, 3, 3, 4, 5});  // row 2 is wrong
  batch.weights = at::tensor({1.0F, 1.0F, 1.0F, 0.0F, 0.0F, 1.0F});
  const auto task = classification(0.0);
  at::Tensor counts = task->make_counts();
  const at::Tensor right = task->count(logits, batch, counts);
  EXPECT_TRUE(at::equal(right, at::tensor({1, 1, 0, 1, 1, 1}).to(at::kBool)));
  const auto summary = task->summarize(counts);
  EXPECT_EQ(summary[0].name, "top1");
  EXPECT_DOUBLE_EQ(summary[0].value, 75.0);
}

// A model that gives every class the same score has learnt nothing; one that gives NaN, less.
TEST(ClassificationCounts, TiesAndNanAreWrong) {
  EXPECT_EQ(metrics_of(at::zeros({4, 10}, at::kDouble), labelled({0, 1, 2, 3})).at("top1"), 0.0);
  EXPECT_EQ(metrics_of(at::zeros({4, 10}, at::kDouble), labelled({0, 1, 2, 3})).at("top5"), 0.0);
  const at::Tensor broken =
      at::full({2, 10}, std::numeric_limits<double>::quiet_NaN(), at::kDouble);
  EXPECT_EQ(metrics_of(broken, labelled({0, 9})).at("top1"), 0.0);
  EXPECT_EQ(metrics_of(broken, labelled({0, 9})).at("top5"), 0.0);
}

TEST(ClassificationCounts, FiveOfFewerClassesAreAllOfThem) {
  const at::Tensor logits = (at::arange(12, at::kDouble) * 2.3).sin().view({4, 3});
  EXPECT_EQ(metrics_of(logits, labelled({0, 1, 2, 0})).at("top5"), 100.0);
}

TEST(ClassificationTask, RefusesSettingsItDoesNotKnow) {
  EXPECT_THROW(classification(1.0), SpecError);
  EXPECT_THROW(classification(-0.1), SpecError);
}

TEST(DistillationTerm, Golden) {
  const at::Tensor student = row({1, 2, 3}), teacher = row({3, 1, 2});
  Distillation::Options options{.alpha = 0.5, .temperature = 3.0, .hard = false};
  EXPECT_NEAR(Distillation::kd_loss(options, student, teacher).item<double>(), 0.3453225, 1e-7);
  options.hard = true;
  EXPECT_NEAR(Distillation::kd_loss(options, student, teacher).item<double>(), 2.4076059, 1e-7);
}

TEST(DistillationTerm, SoftIsTheMeanOverAllElements) {
  const at::Tensor student = (at::arange(12, at::kDouble) * 1.1).cos().view({3, 4});
  const at::Tensor teacher = (at::arange(12, at::kDouble) * 0.7).sin().view({3, 4});
  constexpr double kTau = 2.0;
  double sum = 0;
  for (std::int64_t i = 0; i < 3; ++i) {
    const at::Tensor p = at::softmax(teacher[i] / kTau, 0), q = at::softmax(student[i] / kTau, 0);
    sum += (p * (p.log() - q.log())).sum().item<double>();
  }
  const Distillation::Options options{.alpha = 0.5, .temperature = kTau, .hard = false};
  EXPECT_NEAR(Distillation::kd_loss(options, student, teacher).item<double>(),
              kTau * kTau * sum / 12, 1e-14);
}

TEST(DistillationLoss, WeighsLabelAndTeacherOnTheRightHeads) {
  const auto teacher = golden_vit();
  const at::Tensor images = golden_images();
  const at::Tensor taught = logits_of(*teacher, images);
  const at::Tensor base = at::full({}, 0.8, at::kDouble);
  const at::Tensor two_heads =
      (at::arange(20, at::kDouble) * 0.9).sin().view({2, 2, 5}).requires_grad_(true);
  for (const bool hard : {true, false}) {
    const Distillation::Options options{.alpha = 0.3, .temperature = 1.5, .hard = hard};
    const Distillation distillation(options, teacher);
    for (const at::Tensor& head : {two_heads.select(1, 1)}) {
      const double kd = Distillation::kd_loss(options, head, taught).item<double>();
      EXPECT_NEAR(distillation.loss(base, two_heads, images).item<double>(), 0.7 * 0.8 + 0.3 * kd,
                  1e-14);
      EXPECT_NEAR(distillation.loss(base, head, images).item<double>(), 0.7 * 0.8 + 0.3 * kd, 1e-14)
          << "a model with one head learns on that";
    }
  }
  const Distillation distillation({.alpha = 1.0, .temperature = 1.0, .hard = false}, teacher);
  distillation.loss(base, two_heads, images).backward();
  EXPECT_EQ(two_heads.grad().select(1, 0).abs().max().item<double>(), 0.0);
  EXPECT_GT(two_heads.grad().select(1, 1).abs().max().item<double>(), 0.0);
  for (const at::Tensor& parameter : teacher->parameters())
    EXPECT_FALSE(parameter.grad().defined());
}

TEST(DistillationLoss, AsksTheTeacherInEvaluationMode) {
  const auto teacher = golden_vit();
  teacher->train();
  const Distillation distillation({.alpha = 1.0, .temperature = 1.0, .hard = true}, teacher);
  EXPECT_FALSE(teacher->is_training());
}

}  // namespace
}  // namespace ablate::test
