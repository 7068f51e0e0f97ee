#include <chrono>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runner/core/files.h"
#include "tests/cli/cli_fixture.h"

namespace ablate {
namespace {

using nlohmann::json;
using test::Cli;
using test::has;
using test::kSweep;

// A sweep looked at while, and after, another process runs it.
class Follow : public Cli {
 protected:
  ChildProcess start_sweep() {
    ProcessOptions options = test::ablate_process(folder_.path(), {"sweep", "s.toml"});
    options.output_file = folder_ / "swept.txt";
    options.error_file = folder_ / "log.txt";
    ChildProcess child(options);
    while (!std::filesystem::exists(folder_ / "out/results.db.ingest-lease")) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return child;
  }
};

TEST_F(Follow, LooksOnUntilTheSweepIsOverThenPrintsItsTable) {
  std::string text = kSweep;
  text.replace(text.find("steps = 5"), 9, "steps = 20, step_ms = 20");
  write("s.toml", text);
  ChildProcess sweep = start_sweep();
  const CapturedRun followed = run({"sweep", "s.toml", "--watch"});
  EXPECT_EQ(sweep.wait().code, 0);
  EXPECT_EQ(followed.status.code, 0) << followed.errors;
  EXPECT_TRUE(has(followed.output, "followed: process ")) << followed.output;
  EXPECT_TRUE(has(followed.output, "demo: 4 done\n")) << followed.output;
  EXPECT_TRUE(followed.output.ends_with(read_file(folder_ / "swept.txt"))) << followed.output;
  EXPECT_FALSE(has(read_file(folder_ / "log.txt"), "again")) << "nobody disturbed the sweep";
}

TEST_F(Follow, StartsNothingAndEndsAsTheSweepWould) {
  write("s.toml", kSweep);
  const CapturedRun unknown = run({"sweep", "s.toml", "--watch"});
  EXPECT_EQ(unknown.status.code, 2) << "there is no database yet";
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
  sweep();
  write("s.toml", kSweep + "[[variant]]\nlabel = \"bad\"\nmodel = { script = [\"fail@2\"] }\n");
  run({"sweep", "s.toml", "--no-bench"});
  const CapturedRun failed = run({"sweep", "s.toml", "--watch"});
  EXPECT_EQ(failed.status.code, 1) << failed.errors;
  EXPECT_TRUE(has(failed.output, "nobody works on it")) << failed.output;
  EXPECT_TRUE(has(failed.output, "A demo")) << failed.output;
  run({"retry", "--failed"});
  EXPECT_EQ(run({"sweep", "s.toml", "--watch"}).status.code, 3) << "something is left to do";
  EXPECT_EQ(run({"sweep", "s.toml", "--watch", "--dry-run"}).status.code, 2);
}

TEST_F(Follow, StatusForPrograms) {
  write("s.toml", kSweep + "[[variant]]\nlabel = \"bad\"\nmodel = { script = [\"fail@2\"] }\n");
  run({"sweep", "s.toml"});
  const json status = json::parse(run({"status", "--json"}).output);
  ASSERT_EQ(status.size(), 1U);
  EXPECT_EQ(status[0].at("sweep"), "demo");
  EXPECT_EQ(status[0].at("counts"), (json{{"done", 4}, {"failed", 2}}));
  ASSERT_EQ(status[0].at("runs").size(), 6U);
  const json& run0 = status[0]["runs"][0];
  EXPECT_EQ(run0.at("label"), "dense");
  EXPECT_EQ(run0.at("seed"), 0);
  EXPECT_EQ(run0.at("state"), "done");
  EXPECT_EQ(run0.at("attempts"), 1);
  EXPECT_EQ(run0.at("step"), 5);
  EXPECT_GE(run0.at("end_us").get<std::int64_t>(), run0.at("start_us").get<std::int64_t>());
  EXPECT_EQ(status[0]["runs"][2].at("detail"), "scripted bug");
  const CapturedRun unknown = run({"status", "demi", "--json"});
  EXPECT_EQ(unknown.status.code, 2);
  EXPECT_TRUE(has(unknown.errors, "did you mean \"demo\"")) << unknown.errors;
}

}  // namespace
}  // namespace ablate
