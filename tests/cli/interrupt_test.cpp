#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <thread>

#include <gtest/gtest.h>

#include "runner/core/files.h"
#include "runner/core/run_paths.h"
#include "sweeps/job_record.h"
#include "tests/support/programs.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

class Interrupt : public ::testing::Test {
 protected:
  void write(const std::string& model, int ranks) {
    std::ofstream(folder_ / "s.toml")
        << "name = \"s\"\n[run]\ndataset = { name = \"d\" }\nmodel = { name = \"fake\", " << model
        << " }\n[[variant]]\nlabel = \"a\"\n[seeds]\ncount = 1\n[launch]\nranks = " << ranks
        << "\n";
  }

  /// Starts `ablate sweep` and returns once its run has written checkpoints for a while.
  ChildProcess start() {
    ProcessOptions options = test::ablate_process(folder_.path(), {"sweep", "s.toml"});
    options.output_file = folder_ / "stdout.txt";
    options.error_file = folder_ / "stderr.txt";
    ChildProcess child(options);
    wait_until([&] { return !run_id().empty() && fs::exists(paths().checkpoints() / "newest"); });
    return child;
  }

  /// Waits without a deadline of its own: the test runner has one.
  static void wait_until(const std::function<bool()>& condition) {
    while (!condition()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }

  std::string run_id() const {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder_ / "out/runs", ignored)) {
      return entry.path().filename();
    }
    return "";
  }
  RunPaths paths() const { return {folder_ / "out", run_id()}; }
  std::string errors() const { return read_file(folder_ / "stderr.txt"); }
  std::string query(const std::string& sql) {
    return test::run_ablate(folder_.path(), {"query", sql, "--format", "csv"}).output;
  }
  std::string final_top1() {
    return query(
        "SELECT step, value FROM final JOIN metric USING(metric_id) WHERE name = "
        "'eval/top1'");
  }

  test::TempFolder folder_;
};

const char* const kAttempts = "SELECT outcome FROM attempt ORDER BY n";

TEST_F(Interrupt, CtrlCStopsWithACheckpointAndTheSameCommandContinues) {
  write("steps = 100, step_ms = 5", 1);
  ChildProcess ablate = start();
  ASSERT_EQ(::kill(ablate.pid(), SIGINT), 0);
  EXPECT_EQ(ablate.wait().code, 3) << errors();
  EXPECT_NE(errors().find("the same command continues"), std::string::npos) << errors();
  EXPECT_EQ(query(kAttempts), "outcome\ninterrupted\n");
  EXPECT_EQ(end_leftovers(paths()), 0);
  EXPECT_EQ(test::run_ablate(folder_.path(), {"sweep", "s.toml"}).status.code, 0);
  EXPECT_EQ(query(kAttempts), "outcome\ninterrupted\ndone\n");
  EXPECT_EQ(final_top1(), "step,value\n100,150\n");
}

TEST_F(Interrupt, ASecondCtrlCKillsRunsThatDoNotListen) {
  write("steps = 10, script = [\"hang@4\", \"done\"]", 1);
  ChildProcess ablate = start();
  ASSERT_EQ(::kill(ablate.pid(), SIGINT), 0);
  wait_until([&] { return fs::exists(paths().stop_file()); });
  ASSERT_EQ(::kill(ablate.pid(), SIGINT), 0);
  EXPECT_EQ(ablate.wait().code, 3) << errors();
  EXPECT_EQ(end_leftovers(paths()), 0);
  EXPECT_EQ(test::run_ablate(folder_.path(), {"sweep", "s.toml"}).status.code, 0);
  EXPECT_EQ(final_top1(), "step,value\n10,60\n");
}

TEST_F(Interrupt, TermMeansTheSameAsCtrlC) {
  write("steps = 100, step_ms = 5", 1);
  ChildProcess ablate = start();
  ASSERT_EQ(::kill(ablate.pid(), SIGTERM), 0);
  EXPECT_EQ(ablate.wait().code, 3) << errors();
  EXPECT_EQ(query(kAttempts), "outcome\ninterrupted\n");
}

TEST_F(Interrupt, AJobThatOutlivesItsAblateIsAdopted) {
  write("steps = 100, step_ms = 5", 2);
  ChildProcess ablate = start();
  ASSERT_EQ(::kill(ablate.pid(), SIGKILL), 0);
  ablate.wait();
  const CapturedRun second = test::run_ablate(folder_.path(), {"sweep", "s.toml"});
  EXPECT_EQ(second.status.code, 0) << second.errors;
  // Adopted, or found done if it was faster: never run twice.
  EXPECT_EQ(query(kAttempts), "outcome\ndone\n") << second.errors;
  EXPECT_EQ(final_top1(), "step,value\n100,150\n");
}

TEST_F(Interrupt, ASingleRankDiesWithItsAblateAndGoesOnFromTheCheckpoint) {
  write("steps = 100, step_ms = 5", 1);
  ChildProcess ablate = start();
  ASSERT_EQ(::kill(ablate.pid(), SIGKILL), 0);
  ablate.wait();
  EXPECT_EQ(test::run_ablate(folder_.path(), {"sweep", "s.toml"}).status.code, 0);
  EXPECT_EQ(query(kAttempts), "outcome\ntransient\ndone\n");
  EXPECT_EQ(final_top1(), "step,value\n100,150\n");
}

TEST_F(Interrupt, AJobNobodyRecordedIsEnded) {
  write("steps = 100000, step_ms = 5, script = [\"done\"]", 2);
  ChildProcess ablate = start();
  wait_until([&] { return fs::exists(paths().directory / "job.json"); });
  ASSERT_EQ(::kill(ablate.pid(), SIGKILL), 0);
  ablate.wait();
  fs::remove(paths().directory / "job.json");  // as if killed before it was written
  ProcessOptions options = test::ablate_process(folder_.path(), {"sweep", "s.toml"});
  options.output_file = folder_ / "stdout.txt";
  options.error_file = folder_ / "stderr2.txt";
  ChildProcess second(options);
  wait_until([&] { return fs::exists(paths().spool(2, 0)); });
  ASSERT_EQ(::kill(second.pid(), SIGINT), 0);
  EXPECT_EQ(second.wait().code, 3);
  EXPECT_EQ(query(kAttempts), "outcome\ninterrupted\ninterrupted\n");
  EXPECT_EQ(end_leftovers(paths()), 0);
}

TEST_F(Interrupt, TwoAtOnceAreRefusedByName) {
  write("steps = 100, step_ms = 5", 1);
  ChildProcess ablate = start();
  const CapturedRun second = test::run_ablate(folder_.path(), {"sweep", "s.toml"});
  EXPECT_EQ(second.status.code, 1);
  EXPECT_NE(second.errors.find(std::to_string(ablate.pid())), std::string::npos) << second.errors;
  ASSERT_EQ(::kill(ablate.pid(), SIGINT), 0);
  EXPECT_EQ(ablate.wait().code, 3);
}

}  // namespace
}  // namespace ablate
