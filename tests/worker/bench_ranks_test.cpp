#include "runner/worker/bench_ranks.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "runner/measure/cuda_devices.h"
#include "tests/support/run_ranks.h"
#include "tests/support/source_tree.h"
#include "tests/support/temp_folder.h"
#include "tests/worker/ablate_train.h"

namespace ablate {
namespace {

using nlohmann::json;

// A clock that the work itself moves: together 2 s on rank 0 and 3 s on rank 1, alone 1 and 2 s.
TEST(BenchRanks, ScalingIsTheSlowestTogetherOverTheSumAlone) {
  test::run_ranks(2, [](Communicator& world) {
    double now = 0;
    const RankTimes times = time_on_ranks(
        world, [&] { now += 2 + world.rank(); }, [&] { now += 1 + world.rank(); },
        {.budget_seconds = 40, .warm_up = 1}, [&] { return now; });
    // Rank 0 could do 13 rounds of 3 s, rank 1 only 8 of 5 s.
    EXPECT_EQ(times.seconds, std::vector<double>(8, 3.0));
    EXPECT_DOUBLE_EQ(times.scaling, (2 / 3.0) / (1 / 1.0 + 1 / 2.0));
  });
}

/// Of the sources, or beside the programs where these were brought alone.
std::string ranks_script() {
  const auto script = test::source_root() / "scripts/ranks";
  return (std::filesystem::exists(script) ? script : test::program("ranks")).string();
}

/// Runs `ablate-train` as two ranks that meet without MPI.
CapturedRun run_two_ranks(std::vector<std::string> arguments) {
  const std::vector<std::string> launcher{ranks_script(), "2",
                                          test::program("ablate-train").string()};
  arguments.insert(arguments.begin(), launcher.begin(), launcher.end());
  ProcessOptions options;
  options.arguments = std::move(arguments);
  options.environment = {{"OMP_NUM_THREADS", "1"}};
  return run_and_capture(options, {}, 120);
}

/// What rank 0 printed.
json json_of_two_ranks(std::vector<std::string> arguments) {
  const CapturedRun run = run_two_ranks(std::move(arguments));
  EXPECT_EQ(run.status.code, 0) << run.errors;
  return json::parse(run.output, nullptr, /*allow_exceptions=*/false);
}

/// A bench of training steps of a small ViT.
std::vector<std::string> small_training(const std::vector<std::string>& more) {
  std::vector<std::string> arguments{"bench",
                                     "--model",
                                     "vit",
                                     "--model-params",
                                     "{ image_size = 8, embed_dim = 64, depth = 2, num_heads = 2 }",
                                     "--protocol",
                                     "train",
                                     "--batch",
                                     "4",
                                     "--budget-seconds",
                                     "0"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(BenchRanks, RanksWithoutMpiGiveOneRowForAllOfThem) {
  const test::TempFolder folder;
  const auto structure = (folder / "structure.json").string();
  std::ofstream(structure) << R"({"model": {"name": "vit", "params": {"image_size": 8,
    "embed_dim": 16, "depth": 2, "num_heads": 2}}, "classes": 4, "bn_group": 0, "edits": []})";
  const json report = json_of_two_ranks({"bench", "--structure", structure, "--protocol", "train",
                                         "--batch", "4", "--budget-seconds", "0"});
  ASSERT_EQ(report.at("rows").size(), 1U);
  const json& row = report.at("rows")[0];
  EXPECT_EQ(row.at("protocol"), "train-fp32-b4-x2");
  EXPECT_EQ(row.at("world_size"), 2);
  EXPECT_GT(row.at("scaling").get<double>(), 0);
  EXPECT_DOUBLE_EQ(row.at("images_per_s").get<double>(),
                   8 / (1e-3 * row.at("p50_ms").get<double>()));
}

TEST(BenchRanks, AWireIsForRanksOnDevices) {
  const CapturedRun on_cpu = run_two_ranks(small_training({"--wire", "bf16"}));
  EXPECT_EQ(on_cpu.status.code, 2);
  EXPECT_NE(on_cpu.errors.find("--wire bf16 is for --device cuda"), std::string::npos)
      << on_cpu.errors;
  const CapturedRun alone = test::run_ablate_train(small_training({"--wire", "bf16"}));
  EXPECT_EQ(alone.status.code, 2);
  EXPECT_NE(alone.errors.find("--wire is for several ranks"), std::string::npos) << alone.errors;
}

TEST(BenchRanks, AMissingDeviceIsSaidInOneLine) {
  if (ABLATE_HAS_CUDA == 0 || !find_cuda_devices().devices.empty()) GTEST_SKIP() << "for CPUs";
  const CapturedRun run = test::run_ablate_train(small_training({"--device", "cuda"}));
  EXPECT_EQ(run.status.code, 2);
  EXPECT_NE(run.errors.find("there are 0 CUDA devices"), std::string::npos) << run.errors;
  EXPECT_EQ(std::ranges::count(run.errors, '\n'), 1) << run.errors;
}

TEST(BenchRanksGpu, BothWiresAreMeasured) {
  if (find_cuda_devices().devices.size() < 2) GTEST_SKIP() << "needs 2 GPUs";
  for (const auto& [wire, protocol] :
       {std::pair("fp32", "train-bf16-b4-x2"), std::pair("bf16", "train-bf16-b4-wire-bf16-x2")}) {
    const json report =
        json_of_two_ranks(small_training({"--device", "cuda", "--dtype", "bf16", "--wire", wire}));
    EXPECT_EQ(report.at("rows")[0].at("protocol"), protocol);
    EXPECT_GT(report.at("rows")[0].at("scaling").get<double>(), 0);
  }
}

TEST(BenchRanks, RanksWithoutMpiMeasureTheirCommunication) {
  const json report = json_of_two_ranks({"bench", "comm", "--max-mib", "1", "--seconds", "0.01"});
  EXPECT_EQ(report.at("backend"), "store");
  EXPECT_EQ(report.at("ranks"), 2);
}

TEST(BenchRanks, TheFirstFailureIsTheStatusOfAll) {
  ProcessOptions options;
  options.arguments = {ranks_script(), "3", "sh", "-c", "[ $RANK != 1 ] || exit 4"};
  EXPECT_EQ(run_and_capture(options, {}, 60).status.code, 4);
}

}  // namespace
}  // namespace ablate
