#include <gtest/gtest.h>

#include "runner/train/task.h"
#include "tests/support/gpu.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

#if ABLATE_HAS_CUDA

// Labels of pixels on a CUDA device: what the CPU computes, the same bits every time.

namespace ablate::test {
namespace {

constexpr std::string_view kDeviceDense = R"(
epochs = 3
global_batch = 16
seed = 5
evaluate_every = 100
[dataset]
name = "synthetic_segmentation"
train_size = 64
test_size = 21
classes = 5
image_size = 32
ragged = true
[model]
name = "linear_vit"
image_size = 32
patch_size = 4
embed_dim = 64
depth = 2
num_heads = 2
[optimizer]
name = "adamw"
lr = 1e-3
)";

class SegmentationGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no GPU";
    at::globalContext().setAllowTF32CuBLAS(false);
    at::globalContext().setAllowTF32CuDNN(false);
  }

  static RunRecord run_on(const char* device, const RunSpec& spec) {
    const TempFolder out;
    return run_in(out.path(), device, spec);
  }
  static RunRecord run_in(const std::filesystem::path& out, const char* device,
                          const RunSpec& spec) {
    const Environment environment = environment_in(out, device);
    const Outcome outcome = run_attempt(spec, environment);
    EXPECT_EQ(outcome.state, OutcomeState::Done) << outcome.detail;
    return read_run(spec, environment);
  }
};

struct LossAndGradient {
  at::Tensor loss, gradient;
};

LossAndGradient loss_on(at::Device device, std::string_view settings) {
  const Value table = parse_toml(settings, "test");
  Params params(table, "task");
  const auto task = Registry<TaskInfo>::get("segmentation")
                        .make(params, {.classes = 7, .normalization = {}, .dense = true});
  Batch batch;
  const at::Tensor classes = at::arange(4 * 33 * 29, at::kLong).remainder(9);
  batch.label_maps =
      at::where(classes < 7, classes, 255).to(at::kByte).view({4, 33, 29}).to(device);
  at::Tensor scores = (at::arange(4 * 7 * 8 * 9, at::kDouble) * 1.37)
                          .sin()
                          .to(at::kFloat)
                          .view({4, 7, 8, 9})
                          .to(device)
                          .requires_grad_();
  const at::Tensor loss = task->loss(scores, batch);
  loss.backward();
  return {loss.detach().cpu(), scores.grad().cpu()};
}

TEST_F(SegmentationGpu, LossEqualsTheCpuAndRepeatsItsBits) {
  const at::Device device(at::kCUDA, 0);
  for (const char* settings : {"average = 'valid'", "average = 'all'",
                               "class_weights = [1.0, 2.0, 0.5, 1.0, 1.0, 3.0, 1.0]"}) {
    const LossAndGradient truth = loss_on(at::kCPU, settings), got = loss_on(device, settings),
                          again = loss_on(device, settings);
    EXPECT_NEAR(got.loss.item<double>(), truth.loss.item<double>(), 1e-5) << settings;
    EXPECT_TRUE(at::allclose(got.gradient, truth.gradient, 1e-4, 1e-8)) << settings;
    EXPECT_TRUE(at::equal(got.loss, again.loss)) << settings;
    EXPECT_TRUE(at::equal(got.gradient, again.gradient)) << settings;
  }
}

TEST_F(SegmentationGpu, RunsComputeWhatTheCpuComputes) {
  const RunSpec spec = resolve_table(kDeviceDense, {"precision=fp32"});
  const RunRecord host = run_on("cpu", spec), device = run_on("cuda", spec);
  for (const auto& [step, loss] : host.series.at("train/loss")) {
    EXPECT_NEAR(device.series.at("train/loss").at(step), loss, 2e-4 * loss) << step;
  }
  EXPECT_NEAR(device.finals.at("aacc"), host.finals.at("aacc"), 1.0);
}

// Captured steps with bfloat16 operands: close to single precision, and the same bits twice.
TEST_F(SegmentationGpu, CapturedRunsRepeatTheirBits) {
  const RunSpec spec = resolve_table(kDeviceDense, {"precision=bf16"});
  const TempFolder out;
  const RunRecord first = run_in(out / "first", "cuda", spec);
  keep_gemm_choices(out / "first", out / "again");
  const RunRecord again = run_in(out / "again", "cuda", spec);
  EXPECT_EQ(first.series.at("train/loss"), again.series.at("train/loss"));
  EXPECT_EQ(first.finals, again.finals);
  expect_same_tensors(first.weights, again.weights);
  const RunRecord single = run_on("cuda", resolve_table(kDeviceDense, {"precision=fp32"}));
  for (const auto& [step, loss] : single.series.at("train/loss")) {
    EXPECT_NEAR(first.series.at("train/loss").at(step), loss, 0.02 * loss) << step;
  }
}

TEST_F(SegmentationGpu, RunsGoOnAsIfNothingHadHappened) {
  const RunSpec spec = resolve_table(kDeviceDense, {"precision=bf16", "epochs=1"});
  const TempFolder out;
  const RunRecord at_once = run_in(out / "whole", "cuda", spec);
  keep_gemm_choices(out / "whole", out / "pieces");
  Environment environment = environment_in(out / "pieces", "cuda");
  for (environment.attempt = 1;; ++environment.attempt) {
    ASSERT_LT(environment.attempt, 10);
    if (run_attempt(spec, environment, 1, true).state == OutcomeState::Done) break;
  }
  const RunRecord resumed = read_run(spec, environment, environment.attempt);
  expect_same_tensors(resumed.weights, at_once.weights);
}

}  // namespace
}  // namespace ablate::test

#endif
