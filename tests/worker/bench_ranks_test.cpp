#include "runner/worker/bench_ranks.h"

#include <fstream>

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

/// Runs `ablate-train` as two ranks that meet without MPI; what rank 0 printed.
json json_of_two_ranks(std::vector<std::string> arguments) {
  const std::vector<std::string> launcher{"scripts/ranks", "2",
                                          test::program("ablate-train").string()};
  arguments.insert(arguments.begin(), launcher.begin(), launcher.end());
  ProcessOptions options;
  options.arguments = std::move(arguments);
  options.environment = {{"OMP_NUM_THREADS", "1"}};
  options.working_folder = test::source_root();
  const CapturedRun run = run_and_capture(options, {}, 120);
  EXPECT_EQ(run.status.code, 0) << run.errors;
  return json::parse(run.output, nullptr, /*allow_exceptions=*/false);
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

TEST(BenchRanks, RanksWithoutMpiMeasureTheirCommunication) {
  const json report = json_of_two_ranks({"bench", "comm", "--max-mib", "1", "--seconds", "0.01"});
  EXPECT_EQ(report.at("backend"), "store");
  EXPECT_EQ(report.at("ranks"), 2);
}

TEST(BenchRanks, TheFirstFailureIsTheStatusOfAll) {
  ProcessOptions options;
  options.arguments = {"scripts/ranks", "3", "sh", "-c", "[ $RANK != 1 ] || exit 4"};
  options.working_folder = test::source_root();
  EXPECT_EQ(run_and_capture(options, {}, 60).status.code, 4);
}

}  // namespace
}  // namespace ablate
