#include <gtest/gtest.h>

#include "methods/models/channel_gates.h"
#include "runner/measure/mac_counter.h"
#include "runner/train/finals.h"
#include "tests/support/gpu.h"
#include "tests/support/models.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// Whole runs that learn which channels to remove, cut them and go on.

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

/// An epoch is sixteen steps; two of four epochs are search.
constexpr std::string_view kPrunedVit = R"(
epochs = 4
global_batch = 32
ema_decay = 0.9
seed = 5
[dataset]
name = "synthetic"
train_size = 512
test_size = 60
classes = 6
image_size = 16
[model]
name = "vit"
image_size = 16
patch_size = 4
embed_dim = 64
depth = 3
num_heads = 2
[optimizer]
name = "adamw"
lr = 1e-3
[[methods]]
name = "channel_pruning"
target = 0.6
search_epochs = 2
lr_factor = 60.0
init_everywhere = true
similarity_every = 5
samples = 64
)";

constexpr double kTarget = 0.6;

RunRecord pruned_run(const RunSpec& spec, const fs::path& out, const std::string& device = "cpu") {
  const Environment environment = environment_in(out, device);
  const Outcome outcome = run_attempt(spec, environment);
  EXPECT_EQ(outcome.state, OutcomeState::Done) << outcome.detail;
  return read_run(spec, environment);
}

double share_of_dense(const RunRecord& record) {
  const auto dense = make_model("vit",
                                "image_size = 16\npatch_size = 4\nembed_dim = 64\ndepth = 3\n"
                                "num_heads = 2",
                                6);
  dense->initialize(1);
  return record.finals.at("macs") / static_cast<double>(measure_cost(*dense).macs);
}

/// Mean of the numbers of a series at steps [from, to).
double mean_of(const RunRecord& record, const std::string& name, std::int64_t from,
               std::int64_t to) {
  double sum = 0;
  for (std::int64_t step = from; step < to; ++step) sum += record.series.at(name).at(step);
  return sum / static_cast<double>(to - from);
}

TEST(ChannelPruningRun, FollowsTheRampAndHitsTheTarget) {
  const TempFolder out;
  const RunSpec spec = resolve_table(kPrunedVit);
  const RunRecord record = pruned_run(spec, out.path());
  EXPECT_LT(mean_of(record, "train/loss", 60, 64), mean_of(record, "train/loss", 0, 4));
  // At the end of the first epoch of search it aims at the target already.
  EXPECT_DOUBLE_EQ(record.series.at("channel_pruning/aim").at(15), kTarget);
  EXPECT_GT(record.series.at("channel_pruning/least_kept").at(31), 0.0);
  EXPECT_NEAR(record.series.at("channel_pruning/macs").at(31), kTarget, 0.1 * kTarget);
  EXPECT_LE(share_of_dense(record), kTarget);
  EXPECT_GT(share_of_dense(record), kTarget - 0.01);
}

// Whoever builds the structure anew and loads the weights has the same network: raw and averaged.
TEST(ChannelPruningRun, LeavesWeightsAndTheirAverageInTheCutShape) {
  for (const char* search : {"2", "4"}) {  // cut on the way, or when all is over
    const TempFolder out;
    RunSpec spec = resolve_table(std::string(kPrunedVit)
                                     .replace(std::string(kPrunedVit).find("search_epochs = 2"), 17,
                                              cat("search_epochs = ", search)));
    const RunRecord record = pruned_run(spec, out.path());
    const Finals finals = read_finals(RunPaths(out.path(), spec.id()).final_directory());
    const auto raw = load_final_model(finals, false), average = load_final_model(finals, true);
    EXPECT_EQ(record.finals.at("macs"), static_cast<double>(measure_cost(*average).macs));
    const at::Tensor images = wavy_images(3, 16);
    raw->eval();
    average->eval();
    const at::Tensor a = logits_of(*raw, images), b = logits_of(*average, images);
    EXPECT_TRUE(b.isfinite().all().item<bool>());
    EXPECT_FALSE(at::equal(a, b));
    // Weights move slowly: the average is near, also where it was sliced.
    const auto averages = average->named_parameters();
    for (const auto& item : raw->named_parameters()) {
      const at::Tensor other = averages[item.key()];
      EXPECT_LT((item.value() - other).abs().max().item<double>(), 0.05) << item.key();
    }
  }
}

// The decision is the same however the batch is spread.
TEST(ChannelPruningRun, RanksCutAlike) {
  const TempFolder out;
  const RunSpec spec = resolve_table(kPrunedVit, {"precision=fp64"}, 2);
  const RunRecord alone = run_small(spec, out / "one");
  const RunRecord two = run_small(spec, out / "two", 2);
  EXPECT_EQ(alone.structure, two.structure);
  EXPECT_LT(weight_distance(alone.weights, two.weights), 1e-8);
}

TEST(ChannelPruningRun, RefusesASearchThatOutlastsTheRun) {
  const std::string longer =
      std::string(kPrunedVit)
          .replace(std::string(kPrunedVit).find("search_epochs = 2"), 17, "search_epochs = 5");
  EXPECT_THROW(resolve_table(longer), SpecError);
}

#if ABLATE_HAS_CUDA

class ChannelPruningRunGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no GPU";
    at::globalContext().setAllowTF32CuBLAS(false);
    at::globalContext().setDeterministicAlgorithms(true, false);
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  }
};

// Until the cut the same numbers; what is cut may differ by channels that are worth the same.
TEST_F(ChannelPruningRunGpu, SearchesAsTheCpuDoes) {
  const TempFolder out;
  const RunSpec spec = resolve_table(kPrunedVit);
  const RunRecord host = pruned_run(spec, out / "cpu");
  for (const char* precision : {"fp32", "bf16"}) {
    const RunSpec own = resolve_table(kPrunedVit, {cat("precision=", precision)});
    const RunRecord device = pruned_run(own, out / precision, "cuda");
    double largest = 0;
    for (std::int64_t step = 0; step < 8; ++step) {
      const double a = host.series.at("train/loss").at(step);
      largest = std::max(largest, std::abs(device.series.at("train/loss").at(step) - a) / a);
    }
    std::cout << precision << ": the loss differs by " << largest << "\n";
    EXPECT_LT(largest, std::string(precision) == "fp32" ? 2e-3 : 2e-2);
    EXPECT_LE(share_of_dense(device), kTarget);
    EXPECT_GT(share_of_dense(device), kTarget - 0.01);
  }
}

TEST_F(ChannelPruningRunGpu, ContinuesBitForBit) {
  for (const char* precision : {"fp32", "bf16"}) {
    const RunSpec spec = resolve_table(kPrunedVit, {cat("precision=", precision)});
    const TempFolder out;
    const RunRecord whole = pruned_run(spec, out / "whole", "cuda");
    keep_gemm_choices(out / "whole", out / "pieces");
    Environment environment = environment_in(out / "pieces", "cuda");
    for (environment.attempt = 1; environment.attempt < 80; ++environment.attempt) {
      if (run_attempt(spec, environment, 1, true).state == OutcomeState::Done) break;
    }
    EXPECT_GT(environment.attempt, 2);
    expect_same_bits(whole, read_run(spec, environment, environment.attempt));
  }
}

#endif  // ABLATE_HAS_CUDA

}  // namespace
}  // namespace ablate::test
