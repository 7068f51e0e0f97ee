#include "runner/train/evaluate.h"

#include <numeric>

#include <gtest/gtest.h>

#include "runner/train/run_data.h"
#include "runner/train/run_model.h"
#include "tests/support/datasets.h"
#include "tests/support/models.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// Evaluations count every sample once, on any number of ranks.

namespace ablate::test {
namespace {

constexpr const char* kFifty =
    "train_size = 8\ntest_size = 50\nclasses = 6\nimage_size = 8\nnoise = 60\n";

std::shared_ptr<Model> small_classifier() {
  auto model = make_model("vit",
                          "image_size = 8\npatch_size = 4\nembed_dim = 16\ndepth = 2\nnum_heads = "
                          "2\ndrop_path = 0.5\n",
                          6);
  model->initialize(3);
  move_model(*model, at::kCPU, at::kDouble);
  return model;
}

std::unique_ptr<Task> plain_task() {
  const Value none;
  Params params(none, "task");
  return Registry<TaskInfo>::get("classification").make(params, {});
}

Evaluation evaluate_fifty(Communicator& world, std::int64_t batch) {
  const auto data = open_dataset("synthetic", kFifty).test;
  const auto batches = make_host_batches(std::make_unique<EvalLoader>(
      data, make_recipe("none", 8),
      LoaderOptions{.global_batch = batch, .shard = {world.rank(), world.size()}}));
  const auto model = small_classifier();
  model->train();
  const auto task = plain_task();
  const auto forward = make_plain_forward(*model, at::kDouble, at::kCPU);
  const Evaluation result =
      evaluate(*model, *forward, *task, *batches, data->size(), at::kCPU, world);
  EXPECT_TRUE(model->is_training()) << "the mode is put back";
  return result;
}

/// Each image by itself, counted by hand.
struct ByHand {
  double top1 = 0, top5 = 0, loss = 0;
  std::vector<std::uint8_t> correct;
};

ByHand count_by_hand() {
  const auto data = open_dataset("synthetic", kFifty).test;
  const auto model = small_classifier();
  model->eval();
  const EvalTransform transform(make_recipe("none", 8), data->facts().normalization);
  ByHand result;
  for (std::int64_t i = 0; i < data->size(); ++i) {
    at::Tensor pixels = at::empty({1, 3, 8, 8});
    transform(load_image(*data, i), pixels.data_ptr<float>());
    const at::Tensor logits = logits_of(*model, pixels.to(at::kDouble)).squeeze(0);
    const auto label = data->label(i);
    const auto better = (logits > logits[label]).sum().item<std::int64_t>();
    result.correct.push_back(better == 0 ? 1 : 0);
    result.top1 += better == 0 ? 2.0 : 0.0;  // percent of 50
    result.top5 += better < 5 ? 2.0 : 0.0;
    result.loss -= at::log_softmax(logits, 0)[label].item<double>() / 50;
  }
  return result;
}

TEST(Evaluate, IsExactOverAnyNumberOfRanks) {
  const ByHand expected = count_by_hand();
  EXPECT_GT(expected.top1, 0.0);
  EXPECT_LT(expected.top1, 100.0);
  for (const auto& [ranks, batch] :
       {std::pair{1, 50}, {1, 7}, {2, 16}, {3, 21}, {3, 51}, {4, 8}, {7, 21}, {7, 70}}) {
    run_ranks(ranks, [&](Communicator& world) {
      const Evaluation result = evaluate_fifty(world, batch);
      ASSERT_EQ(result.metrics.size(), 3U);
      EXPECT_EQ(result.metrics[0].value, expected.top1) << ranks << " ranks, batch " << batch;
      EXPECT_EQ(result.metrics[1].value, expected.top5) << ranks << " ranks, batch " << batch;
      EXPECT_NEAR(result.metrics[2].value, expected.loss, 1e-13);
      EXPECT_TRUE(at::equal(result.correct, at::tensor(expected.correct, at::kByte)))
          << ranks << " ranks, batch " << batch;
    });
  }
}

/// Top-1 of a file of weights over a data set, by the evaluation that has just been tested.
double top1_of(const RunSpec& spec, const std::filesystem::path& out, bool average,
               bool holdout = false) {
  const RunPaths paths(out, spec.id());
  const auto model = load_final_model(read_finals(paths.final_directory()), average);
  RunData data(spec, options_of(spec), environment_in(out), {});
  const auto split = holdout ? data.splits().holdout : data.splits().test;
  const auto batches = data.eval_batches(split, at::kCPU);
  const auto self = make_self_communicator();
  const auto task = plain_task();
  const auto forward = make_plain_forward(*model, at::kFloat, at::kCPU);
  return evaluate(*model, *forward, *task, *batches, split->size(), at::kCPU, *self)
      .metrics[0]
      .value;
}

class EvaluatedRun : public testing::TestWithParam<std::string_view> {};

// The points of the last step are those of the weights the run leaves, without drop path.
TEST_P(EvaluatedRun, PointsAreOfTheRawWeightsTheAverageAndTheHoldout) {
  const TempFolder out;
  const RunSpec spec = resolve_table(
      GetParam(), {"epochs=4", "ema_decay=0.8", "dataset.holdout=32", "dataset.train_size=160",
                   "evaluate_every=3", "augmentation=cifar"});
  const RunRecord record = run_small(spec, out.path(), 2);
  const std::int64_t last = 15;
  EXPECT_EQ(record.series.at("eval/top1").at(last), top1_of(spec, out.path(), false));
  EXPECT_EQ(record.series.at("ema/top1").at(last), top1_of(spec, out.path(), true));
  EXPECT_EQ(record.series.at("holdout/top1").at(last), top1_of(spec, out.path(), false, true));
  EXPECT_EQ(record.finals.at("top1"), record.series.at("eval/top1").at(last));
  EXPECT_NE(record.series.at("eval/loss").at(last), record.series.at("ema/loss").at(last));
  // After every third epoch, and after the last.
  for (const char* name : {"eval/top1", "ema/top1", "holdout/top5"}) {
    std::vector<std::int64_t> steps;
    for (const auto& [step, value] : record.series.at(name)) steps.push_back(step);
    EXPECT_EQ(steps, (std::vector<std::int64_t>{11, 15})) << name;
  }
}

TEST_P(EvaluatedRun, SampleBitsAreTheCorrectSamples) {
  const TempFolder out;
  const RunSpec spec = resolve_table(GetParam(), {"epochs=3"});
  const RunRecord record = run_small(spec, out.path(), 4);
  const auto bits = records_of<SampleBits>(RunPaths(out.path(), spec.id()).spool(1, 0));
  ASSERT_EQ(bits.size(), 1U);
  EXPECT_EQ(bits[0].n, 50);
  int right = 0;
  for (std::size_t i = 0; i < 50; ++i) right += bits[0].bits.at(i / 8) >> (i % 8) & 1;
  EXPECT_DOUBLE_EQ(record.finals.at("top1"), 2.0 * right);
}

INSTANTIATE_TEST_SUITE_P(Models, EvaluatedRun, testing::Values(kTinyVit, kTinyResNet),
                         [](const auto& model) {
                           return model.index == 0 ? "Transformer" : "NetworkWithBatchNorm";
                         });

// e <- d e + (1 - d) w after every update, from the start weights: followed by hand along the
// weights of every step.
TEST(Average, FollowsWeightsAndRunningStatistics) {
  const TempFolder out;
  const RunSpec spec = resolve_table(kTinyResNet, {"ema_decay=0.75", "precision=fp64"});
  const RunPaths paths(out.path(), spec.id());
  Environment environment = environment_in(out.path());
  environment.keep_checkpoints = 10;
  std::vector<std::map<std::string, at::Tensor>> states;
  for (environment.attempt = 1; environment.attempt <= 7; ++environment.attempt) {
    run_attempt(spec, environment, 1, true);
    states.push_back(read_tensors(paths.checkpoints() / cat("step-00000000", environment.attempt) /
                                  "tensors.safetensors"));
  }
  int followed = 0;
  for (const auto& [name, first] : states[0]) {
    const bool buffer = name.starts_with("ema_buffers/");
    if (!buffer && !name.starts_with("ema/")) continue;
    const std::string source = "model." + name.substr(name.find('/') + 1);
    at::Tensor average = first;
    for (std::size_t i = 1; i < states.size(); ++i) {
      average = 0.75 * average + 0.25 * states[i].at(source);
      EXPECT_TRUE(at::allclose(states[i].at(name), average, 1e-12, 1e-14))
          << name << ", step " << i;
    }
    EXPECT_FALSE(at::equal(average, first)) << name;
    ++followed;
  }
  EXPECT_GT(followed, 60);
}

}  // namespace
}  // namespace ablate::test
