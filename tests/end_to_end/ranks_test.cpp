#include <cmath>

#include <gtest/gtest.h>

#include "results/curve.h"
#include "results/store.h"
#include "runner/core/run_paths.h"
#include "runner/core/text.h"
#include "tests/end_to_end/sweep_results.h"
#include "tests/end_to_end/weights_file.h"
#include "tests/end_to_end/workbench.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::Workbench;

// 50 steps in double precision; images are mixed within groups that fit into a quarter of a batch.
const char* const kRanksRun =
    R"(dataset = { name = "synthetic", train_size = 320, test_size = 64, image_size = 16, classes = 4 }
model = { name = "vit", image_size = 16, patch_size = 4, embed_dim = 16, depth = 3, num_heads = 2, drop_path = 0.1 }
augmentation = { name = "cifar", mixup = 0.8, cutmix = 1.0 }
methods = [ { name = "nose", remove = 1, samples = 64, dilution_epochs = 3, dilution_per = "step" } ]
epochs = 5
global_batch = 32
mix_group = 8
precision = "fp64"
)";
constexpr std::int64_t kEmbedDim = 16;
constexpr double kTolerance = 1e-9;

/// What one job of so many ranks left, read back through the database.
struct RankedRun {
  std::map<std::string, test::FileTensor> weights;
  std::vector<CurvePoint> losses;
  test::RunResult result;
  std::map<std::string, double> finals;
};

class Ranks : public ::testing::Test {
 protected:
  CapturedRun mpirun(std::vector<std::string> arguments) const {
    ProcessOptions options = test::real_ablate(folder_.path(), {});
    arguments.insert(arguments.begin(), {"mpirun", "--oversubscribe", "--bind-to", "none"});
    options.arguments = std::move(arguments);
    options.environment.emplace_back("OMP_NUM_THREADS", "1");
    options.environment.emplace_back("OMPI_MCA_mpi_yield_when_idle", "1");
    return run_and_capture(options, {}, 120);
  }

  RankedRun run(int ranks, const std::string& out) {
    bench_.write("run.toml", kRanksRun);
    const CapturedRun job =
        mpirun({"-n", std::to_string(ranks), ablate_train(), "run", "run.toml", "--out", out});
    EXPECT_EQ(job.status.code, 0) << job.errors;
    const CapturedRun ingest = bench_.ablate({"ingest", "--out", out});
    EXPECT_EQ(ingest.status.code, 0) << ingest.errors;
    return read(folder_ / out);
  }

  static RankedRun read(const fs::path& out) {
    const auto results = test::read_results(out);
    EXPECT_EQ(results.size(), 1U);
    const std::string id = results.begin()->first;
    ResultStore store(out / "results.db", ResultStore::Mode::ReadOnly);
    RankedRun run{test::read_weights(RunPaths(out, id).final_weights()),
                  read_curve(store, id, "train/loss"),
                  results.begin()->second,
                  {}};
    for (const char* metric : {"eval/loss", "eval/top1"}) {
      run.finals[metric] = read_curve(store, id, metric).back().value;
    }
    return run;
  }

  static std::string ablate_train() { return test::program("ablate-train").string(); }

  test::TempFolder folder_;
  Workbench bench_{folder_.path()};
};

/// The whole vector of weights but for the biases of keys: their true gradient is zero, because
/// softmax does not see a number that is added to all logits of a query.
std::vector<double> weight_vector(const RankedRun& run) {
  std::vector<double> all;
  for (const auto& [name, tensor] : run.weights) {
    EXPECT_EQ(tensor.dtype, "F64") << name;
    const std::vector<double> values = tensor.values<double>();
    const bool qkv = name.ends_with("attn.qkv.bias");
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto part = static_cast<std::int64_t>(i) / kEmbedDim;
      if (!qkv || part != 1) all.push_back(values[i]);
    }
  }
  return all;
}

double relative_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += a[i] * a[i];
  }
  return std::sqrt(difference / norm);
}

void expect_close(const RankedRun& one, const RankedRun& other) {
  const std::vector<double> a = weight_vector(one), b = weight_vector(other);
  ASSERT_EQ(a.size(), b.size());
  EXPECT_GT(a.size(), 5000U);
  EXPECT_LE(relative_difference(a, b), kTolerance);
  // The mean loss of every global batch: other samples, augmentations or masks would show at once.
  ASSERT_EQ(one.losses.size(), 50U);
  ASSERT_EQ(other.losses.size(), 50U);
  for (std::size_t i = 0; i < one.losses.size(); ++i) {
    EXPECT_NEAR(one.losses[i].value, other.losses[i].value, kTolerance) << "step " << i;
  }
  EXPECT_NE(one.losses.back().value, one.losses.front().value);
  for (const auto& [metric, value] : one.finals) {
    EXPECT_NEAR(other.finals.at(metric), value, kTolerance) << metric;
  }
  EXPECT_EQ(one.result.structure, other.result.structure);
}

TEST_F(Ranks, OneTwoAndFourRanksTrainTheSameModel) {
  const RankedRun one = run(1, "one");
  const RankedRun two = run(2, "two");
  expect_close(one, two);
  expect_close(one, run(4, "four"));
  EXPECT_TRUE(contains(two.result.structure, "remove_mixer")) << two.result.structure;
  const RankedRun again = run(2, "again");
  EXPECT_EQ(again.result.numbers, two.result.numbers) << "the same ranks give the same bits";
  EXPECT_TRUE(again.result.weights == two.result.weights);
}

/// CIFAR-10 of a few images; `cut` bytes are missing from the end of its test file.
std::string write_cifar10(const fs::path& folder, std::size_t cut) {
  constexpr std::size_t kRecord = 1 + 3 * 32 * 32;
  fs::create_directories(folder);
  for (const char* name : {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                           "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"}) {
    std::string bytes(8 * kRecord, '\x40');
    for (std::size_t i = 0; i < 8; ++i) bytes[i * kRecord] = static_cast<char>(i);
    if (std::string(name) == "test_batch.bin") bytes.resize(bytes.size() - cut);
    std::ofstream(folder / name, std::ios::binary) << bytes;
  }
  return "cifar10=" + folder.string();
}

const char* const kCifarRun = R"(dataset = { name = "cifar10" }
model = { name = "vit", image_size = 32, patch_size = 16, embed_dim = 16, depth = 1, num_heads = 2 }
epochs = 1
global_batch = 8
)";

TEST_F(Ranks, ARankWithDamagedDataEndsTheJobWithOneMessage) {
  bench_.write("cifar.toml", kCifarRun);
  const std::string good = write_cifar10(folder_ / "good", 0);
  const std::string bad = write_cifar10(folder_ / "bad", 100);
  const CapturedRun job =
      mpirun({"-n", "1", ablate_train(), "run", "cifar.toml", "--data", good, ":", "-n", "1",
              ablate_train(), "run", "cifar.toml", "--data", bad});
  EXPECT_FALSE(job.timed_out) << "the healthy rank waits for ever";
  EXPECT_EQ(job.status.code, 2) << job.errors;
  EXPECT_EQ(test::count_of(job.errors, "no whole number of 3073-byte records"), 1U) << job.errors;
  EXPECT_TRUE(contains(job.errors, "bad/test_batch.bin")) << job.errors;
}

TEST_F(Ranks, AMistakeThatAllRanksMeetIsToldOnce) {
  bench_.write("typo.toml", std::string(kCifarRun) + "epoch = 3\n");
  const CapturedRun job = mpirun({"-n", "2", ablate_train(), "run", "typo.toml", "--data",
                                  write_cifar10(folder_ / "good", 0)});
  EXPECT_EQ(job.status.code, 2) << job.errors;
  EXPECT_EQ(test::count_of(job.errors, "typo.toml:5:"), 1U) << job.errors;
  EXPECT_TRUE(contains(job.errors, "epochs")) << job.errors;
}

}  // namespace
}  // namespace ablate
