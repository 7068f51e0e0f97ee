#include <gtest/gtest.h>

#include "tests/support/gpu.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

#if ABLATE_HAS_CUDA

// Whole runs on a CUDA device: they compute what the CPU computes, and continue exactly.

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

/// Three blocks on images of 32 x 32 with heads that fused attention takes; an epoch is four steps.
constexpr std::string_view kDeviceVit = R"(
epochs = 3
global_batch = 64
mix_group = 8
clip_norm = 1.0
seed = 5
[dataset]
name = "synthetic"
train_size = 256
test_size = 100
classes = 6
image_size = 32
[model]
name = "vit"
image_size = 32
patch_size = 4
embed_dim = 64
depth = 3
num_heads = 2
drop_path = 0.1
[optimizer]
name = "adamw"
lr = 1e-3
)";

const std::vector<std::string> kHalf = {"precision=bf16"};

RunSpec device_spec(const std::vector<std::string>& overrides) {
  return resolve_table(kDeviceVit, joined(all_randomness(), overrides));
}

RunRecord run_on(const std::string& device, const RunSpec& spec, const fs::path& out,
                 std::int64_t micro_batch = 0) {
  Environment environment = environment_in(out, device);
  environment.micro_batch = micro_batch;
  const Outcome outcome = run_attempt(spec, environment);
  EXPECT_EQ(outcome.state, OutcomeState::Done) << outcome.detail;
  return read_run(spec, environment);
}

/// Largest relative difference of two series; both have the same steps.
double series_distance(const RunRecord& a, const RunRecord& b, const std::string& name) {
  const auto &first = a.series.at(name), &second = b.series.at(name);
  EXPECT_EQ(first.size(), second.size()) << name;
  double largest = 0.0;
  for (const auto& [step, value] : first) {
    if (!second.contains(step)) {
      ADD_FAILURE() << name << " has no step " << step;
      continue;
    }
    largest = std::max(largest, std::abs(second.at(step) - value) / std::abs(value));
  }
  return largest;
}

struct DeviceCase {
  const char* name;
  std::vector<std::string> overrides;
};

class DeviceRunGpu : public testing::TestWithParam<DeviceCase> {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
    at::globalContext().setAllowTF32CuBLAS(false);
    at::globalContext().setAllowTF32CuDNN(false);
    at::globalContext().setDeterministicAlgorithms(true, false);
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  }
};

TEST_P(DeviceRunGpu, PlainOperationsFollowTheCpu) {
  const RunSpec spec = device_spec(GetParam().overrides);
  const TempFolder out;
  const RunRecord host = run_on("cpu", spec, out / "cpu");
  const RunRecord device = run_on("cuda", spec, out / "cuda");
  EXPECT_EQ(device.structure, host.structure);
  for (const char* name : {"train/loss", "train/grad_norm", "train/lr"}) {
    const double distance = series_distance(host, device, name);
    std::cout << GetParam().name << ": " << name << " differs by " << distance << "\n";
    EXPECT_LT(distance, 2e-3) << name;
  }
  EXPECT_NEAR(device.finals.at("top1"), host.finals.at("top1"), 3.0);
}

TEST_P(DeviceRunGpu, FusedOperationsFollowPlainOnes) {
  const TempFolder out;
  const RunRecord plain = run_on("cuda", device_spec(GetParam().overrides), out / "plain");
  const RunSpec half = device_spec(joined(GetParam().overrides, kHalf));
  const RunRecord fused = run_on("cuda", half, out / "fused");
  const double loss = series_distance(plain, fused, "train/loss");
  std::cout << GetParam().name << ": the loss differs by " << loss << "\n";
  EXPECT_LT(loss, 3e-3);
}

TEST_P(DeviceRunGpu, MicroBatchesAddUp) {
  const RunSpec spec = device_spec(GetParam().overrides);
  const TempFolder out;
  const RunRecord whole = run_on("cuda", spec, out / "whole");
  const RunRecord parts = run_on("cuda", spec, out / "parts", 16);
  EXPECT_LT(series_distance(whole, parts, "train/loss"), 2e-3);
}

// Attempts that are asked to stop from the beginning; each does as many steps as may be under way.
TEST_P(DeviceRunGpu, ContinuesBitForBit) {
  for (const auto& precision : {std::vector<std::string>{}, kHalf}) {
    const RunSpec spec = device_spec(joined(GetParam().overrides, precision));
    const TempFolder out;
    const RunRecord whole = run_on("cuda", spec, out / "whole");
    keep_gemm_choices(out / "whole", out / "pieces");
    Environment environment = environment_in(out / "pieces", "cuda");
    for (environment.attempt = 1; environment.attempt < 20; ++environment.attempt) {
      if (run_attempt(spec, environment, 1, true).state == OutcomeState::Done) break;
    }
    EXPECT_GT(environment.attempt, 2);
    expect_same_bits(whole, read_run(spec, environment, environment.attempt));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Methods, DeviceRunGpu,
    testing::Values(
        DeviceCase{"dense", {"ema_decay=0.9"}},
        DeviceCase{"crops", {"augmentation.crop=resized", "dataset.image_size=40"}},
        DeviceCase{"rates", {"optimizer.layer_decay=0.7", "optimizer.decay_norms=true"}},
        DeviceCase{"nose", {R"(methods=[{name="nose", layers=[1], dilution_epochs=2}])"}},
        DeviceCase{"tome", {R"(methods=[{name="tome", r=8}])"}}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace ablate::test

#endif  // ABLATE_HAS_CUDA
