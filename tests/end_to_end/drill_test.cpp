#include <set>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runner/core/drill_fault.h"
#include "tests/end_to_end/workbench.h"
#include "tests/support/drill_report.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::contains;
using test::drill_case;
using test::drill_text;
using test::Workbench;

class Drills : public ::testing::Test {
 protected:
  CapturedRun drill(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "drill");
    return bench_.ablate(std::move(arguments));
  }
  json report(std::vector<std::string> arguments, int code) const {
    arguments.emplace_back("--json");
    const CapturedRun run = drill(std::move(arguments));
    EXPECT_EQ(run.status.code, code) << run.output << run.errors;
    return json::parse(run.output);
  }

  test::TempFolder folder_;
  Workbench bench_{folder_.path()};
};

TEST_F(Drills, AKilledRankAndAnInfiniteLossEndAsPromised) {
  const json found = report({"--only", "kill", "--only", "nan"}, 0);
  EXPECT_EQ(found.at("planned"), 3);
  EXPECT_EQ(found.at("passed"), 3);
  const std::string kill = drill_text(drill_case(found, "kill"), "found");
  // The fault comes after 22 steps, checkpoints every fourth.
  EXPECT_TRUE(contains(kill, "resumed from step 20, same result")) << kill;
  const std::string nan = drill_text(drill_case(found, "nan"), "found");
  EXPECT_TRUE(contains(nan, "at step 22")) << nan;
  EXPECT_TRUE(fs::is_empty(bench_.out())) << "nothing is left";
}

TEST_F(Drills, RunsWithoutCheckpointsAreFoundOut) {
  const json kill = drill_case(report({"--only", "kill", "launch.checkpoint_steps=0"}, 1), "kill");
  EXPECT_TRUE(contains(drill_text(kill, "found"), "began again at its first step")) << kill;
  EXPECT_TRUE(contains(drill_text(kill, "fix"), "launch.checkpoint_steps")) << kill;
}

// A fault lies in the output folder of a drill and names its run: nobody else's can meet it.
TEST_F(Drills, AFaultOfAnotherFolderIsRefused) {
  bench_.write(
      "run.toml",
      R"(dataset = { name = "synthetic", train_size = 32, test_size = 16, image_size = 16, classes = 4 }
model = { name = "vit", image_size = 16, patch_size = 4, embed_dim = 16, depth = 1, num_heads = 2 }
epochs = 1
global_batch = 16
)");
  const DrillFault fault{.kind = DrillKind::Kill, .run = "0123", .step = 1};
  write_drill_fault(folder_ / "elsewhere.json", fault);
  const CapturedRun refused =
      bench_.train({"run.toml", "--drill", (folder_ / "elsewhere.json").string()});
  EXPECT_EQ(refused.status.code, 2);
  EXPECT_TRUE(contains(refused.errors, "drill.json")) << refused.errors;
  fs::create_directories(bench_.out());
  write_drill_fault(drill_file(bench_.out()), fault);
  const CapturedRun other =
      bench_.train({"run.toml", "--drill", drill_file(bench_.out()).string()});
  EXPECT_EQ(other.status.code, 0) << other.errors;
}

class DrillsLong : public Drills {};

TEST_F(DrillsLong, EveryCaseOfThisMachineEndsAsPromised) {
  const json found = report({}, 0);
  std::set<std::string> names;
  for (const json& one : found.at("cases")) {
    names.insert(one.at("name"));
    EXPECT_EQ(one.at("passed"), true) << one;
  }
  EXPECT_EQ(names, (std::set<std::string>{"undisturbed", "kill", "hang", "oom", "nan", "disk",
                                          "term", "usr1", "ablate"}));
}

}  // namespace
}  // namespace ablate
