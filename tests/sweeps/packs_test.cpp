#include <cstdlib>
#include <filesystem>

#include "runner/core/files.h"
#include "runner/core/run_paths.h"
#include "tests/sweeps/schedule_fixture.h"

// Several runs as one process, through the real scheduler.

namespace ablate {
namespace {

class Packed : public test::Schedule {
 protected:
  ~Packed() override { ::unsetenv("FAKE_TRAIN_GPUS"); }

  ScheduleSummary run_packed(const std::string& text, std::optional<int> runs,
                             const std::function<void(Launch&)>& change = {}) {
    return run(text, [&](ScheduleOptions& options) {
      options.launch.runs_per_gpu = runs;
      if (change) change(options.launch);
    });
  }
  std::string shared() { return query("SELECT runs_in_process FROM attempt ORDER BY run_id, n"); }
};

std::string variants(const std::vector<std::string>& models) {
  std::string text;
  for (std::size_t i = 0; i < models.size(); ++i) {
    text += cat("[[variant]]\nlabel = \"", static_cast<char>('a' + i),
                "\"\naugmentation = { name = \"x", i, "\" }\n");
    if (!models[i].empty()) text += cat("model = { ", models[i], " }\n");
  }
  return text;
}

TEST_F(Packed, ReadyRunsOfEqualShapeShareAProcess) {
  const ScheduleSummary summary = run_packed(head() + variants({"", "", "", "", ""}), 2);
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(summary.finished, 5U);
  EXPECT_EQ(shared(), "2 2 2 2 1");
  EXPECT_NE(notes_.str().find("one of 2 in a process"), std::string::npos) << notes_.str();
}

TEST_F(Packed, OtherShapesAndChildrenHaveTheirOwnProcess) {
  const ScheduleSummary summary = run_packed(
      head() + variants({"", "steps = 7", ""}) + "[[variant]]\nlabel = \"child\"\nfrom = \"a\"\n",
      4);
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(shared(), "2 1 2 1");
  EXPECT_EQ(states(), "done done done done");
}

TEST_F(Packed, ARunThatEndsLeavesTheOthersAtWork) {
  const ScheduleSummary summary =
      run_packed(head("steps = 8, step_ms = 20") +
                     "[[variant]]\nlabel = \"a\"\n"
                     "[[variant]]\nlabel = \"b\"\naugmentation = { name = \"x\" }\n"
                     "[[variant]]\nlabel = \"child of a\"\nfrom = \"a\"\n",
                 2, [](Launch& launch) { launch.retries = 0; });
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(query("SELECT count(*) FROM attempt"), "3");
}

// A shape is the model as well, so that runs with scripts of their own need one of their own.
const char* const kScripts =
    "[seeds]\ncount = 3\n[run]\ndataset = { name = \"d\" }\nmodel = { name = \"fake\", steps = 6, "
    "step_ms = 30, "
    "by_seed = [\"done\", ";

std::string scripted(const std::string& second, const std::string& third) {
  return std::string("name = \"s\"\n") + kScripts + "\"" + second + "\", \"" + third +
         "\"] }\n[[variant]]\nlabel = \"a\"\n";
}

TEST_F(Packed, ARunThatDivergesEndsAlone) {
  const ScheduleSummary summary = run_packed(scripted("diverge@3", "done"), 3);
  EXPECT_EQ(summary.done, 2U);
  EXPECT_EQ(query("SELECT state FROM run ORDER BY seed"), "done diverged done");
  EXPECT_EQ(shared(), "3 3 3");
}

TEST_F(Packed, ARunThatFailsForTheMomentIsTriedAgainByItself) {
  const ScheduleSummary summary = run_packed(scripted("transient@3 done", "done"), 3);
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(query("SELECT count(*) FROM attempt"), "4");
  EXPECT_EQ(
      query("SELECT group_concat(outcome) FROM attempt JOIN run USING(run_id) WHERE seed = 1"),
      "transient,done");
}

TEST_F(Packed, AKilledProcessSendsAllItsRunsBackToTheirCheckpoints) {
  const ScheduleSummary summary = run_packed(scripted("crash@4 done", "done"), 3);
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(query("SELECT outcome || ':' || cause FROM attempt JOIN run USING(run_id) WHERE seed = "
                  "1 ORDER BY n"),
            "transient:killed done:finished");
  EXPECT_EQ(
      query("SELECT first_step FROM attempt JOIN run USING(run_id) WHERE seed = 1 ORDER BY n"),
      "1 4");
}

TEST_F(Packed, ARunWithoutProgressInCompanyIsTriedAlone) {
  const ScheduleSummary summary = run_packed(scripted("crash@1 crash@1 done", "done"), 3,
                                             [](Launch& launch) { launch.retries = 2; });
  EXPECT_TRUE(summary.complete()) << notes_.str();
  EXPECT_EQ(query("SELECT group_concat(runs_in_process) FROM (SELECT runs_in_process FROM attempt "
                  "JOIN run USING(run_id) WHERE seed = 1 ORDER BY n)"),
            "3,3,1");
}

TEST_F(Packed, ASilentRunTakesItsProcessWithIt) {
  const ScheduleSummary summary = run_packed(scripted("hang@3 done", "done"), 3,
                                             [](Launch& launch) { launch.stall_timeout = 0.5; });
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(query("SELECT outcome || ':' || cause FROM attempt JOIN run USING(run_id) WHERE seed = "
                  "1 ORDER BY n"),
            "transient:hang done:finished");
}

TEST_F(Packed, WhatDidNotFitIsTriedWithHalfAsMany) {
  const ScheduleSummary summary =
      run_packed(scripted("transient@3 done", "transient@3 done"), 3);  // of cause oom
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(
      query("SELECT group_concat(runs_in_process) FROM attempt JOIN run USING(run_id) WHERE n "
            "= 2"),
      "1,1");
}

TEST_F(Packed, EveryGpuHasOneProcess) {
  ::setenv("FAKE_TRAIN_GPUS", "2", 1);
  const ScheduleSummary summary =
      run_packed(head("steps = 6, step_ms = 20") + variants({"", "", "", ""}), 2,
                 [](Launch& launch) { launch.device = "cuda"; });
  EXPECT_TRUE(summary.complete()) << notes_.str();
  EXPECT_EQ(query("SELECT gpu_uuid FROM attempt JOIN attempt_rank USING(attempt_id) JOIN machine "
                  "USING(machine_id) ORDER BY run_id"),
            "GPU-0 GPU-0 GPU-1 GPU-1");
}

TEST_F(Packed, WithoutAGpuTheReasonIsSaid) {
  try {
    run_packed(head() + variants({""}), 1, [](Launch& launch) { launch.device = "cuda"; });
    FAIL() << "there is no GPU";
  } catch (const SpecError& error) {
    EXPECT_NE(std::string(error.what()).find("none is faked"), std::string::npos) << error.what();
  }
}

// Stand-ins are as fast in company as alone, so that more of them are always worth it.
TEST_F(Packed, TheNumberIsFoundOutWhereItIsLeftOpen) {
  const ScheduleSummary summary =
      run(head("steps = 200, step_ms = 10") + variants({"", "", "", "", ""}),
          [](ScheduleOptions& options) {
            options.launch.runs_per_gpu.reset();
            options.launch.retries = 0;
            options.trial = {.warm_up_s = 0.05, .measured_s = 0.2};
          });
  EXPECT_TRUE(summary.complete()) << notes_.str();
  EXPECT_EQ(query("SELECT group_concat(n || ' of ' || runs_in_process) FROM (SELECT n, "
                  "runs_in_process FROM attempt WHERE run_id = 1 AND n <= 3 ORDER BY n)"),
            "1 of 1,2 of 2,3 of 4");
  EXPECT_EQ(query("SELECT DISTINCT state FROM run"), "done");
}

TEST_F(Packed, ShortRunsAreMeasuredByTheirSteps) {
  const ScheduleSummary summary =
      run(head("steps = 6, step_ms = 5") + variants({"", "", "", "", "", "", ""}),
          [](ScheduleOptions& options) { options.launch.runs_per_gpu.reset(); });
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(shared(), "1 2 2 4 4 4 4");
}

TEST_F(Packed, OneLogServesAllRunsOfAProcess) {
  run_packed(head() + variants({"", ""}), 2);
  std::vector<std::string> logs;
  for (const auto& entry : std::filesystem::directory_iterator(workspace_.out / "runs")) {
    logs.push_back(read_file(RunPaths(workspace_.out, entry.path().filename()).log(1)));
  }
  ASSERT_EQ(logs.size(), 2U);
  EXPECT_EQ(logs[0], logs[1]);
  EXPECT_NE(logs[0].find("fake training"), std::string::npos);
}

TEST(RunsPerGpu, IsANumberOrAuto) {
  const auto launch = [](const std::string& text) {
    return parse_launch(parse_toml(text, "launch.toml"));
  };
  EXPECT_EQ(launch("").runs_per_gpu, 1);
  EXPECT_EQ(launch("runs_per_gpu = 4").runs_per_gpu, 4);
  EXPECT_EQ(launch("runs_per_gpu = \"auto\"").runs_per_gpu, std::nullopt);
  EXPECT_THROW(launch("runs_per_gpu = \"many\""), SpecError);
  EXPECT_THROW(launch("runs_per_gpu = 0"), SpecError);
  EXPECT_THROW(launch("runs_per_gpu = 2\nranks = 2"), SpecError);
}

}  // namespace
}  // namespace ablate
