#include <algorithm>
#include <thread>

#include "tests/support/slurm.h"
#include "tests/sweeps/schedule_fixture.h"

namespace ablate {
namespace {

using namespace std::chrono_literals;

/// Sweeps through the stand-in for Slurm with the stand-in trainer.
class SlurmSchedule : public test::Schedule {
 protected:
  static std::string slurm_head(const std::string& model, int seeds, int at_a_time) {
    return cat("name = \"s\"\n[seeds]\ncount = ", seeds,
               "\n[run]\ndataset = { name = \"d\" }\nmodel = { name = \"fake\", ", model,
               " }\n[launch]\nexecutor = \"slurm\"\njobs = ", at_a_time,
               "\nslurm = { look_every = 0.1 }\n");
  }

  /// Does something once the first run is at work.
  template <typename Action>
  std::jthread when_at_work(Action action) {
    return std::jthread([this, action] {
      const auto at_work = [&] {
        std::error_code ignored;
        for (const auto& run :
             std::filesystem::directory_iterator(workspace_.out / "runs", ignored)) {
          if (std::filesystem::exists(run.path() / "checkpoints" / "newest")) return true;
        }
        return false;
      };
      wait_until(at_work);
      action();
    });
  }

  /// Half a minute at most.
  template <typename Condition>
  static void wait_until(Condition condition) {
    for (int i = 0; i < 3000 && !condition(); ++i) std::this_thread::sleep_for(10ms);
  }

  std::string notes() { return notes_.str(); }

  test::FakeSlurm slurm_;
};

const std::string kOneRow = "[[variant]]\nlabel = \"a\"\n";

TEST_F(SlurmSchedule, AWholeSweepIsOneArrayWithACap) {
  const ScheduleSummary summary = run(slurm_head("steps = 4, step_ms = 20", 3, 2) + kOneRow +
                                      "[[variant]]\nlabel = \"child\"\nfrom = \"a\"\n");
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(summary.finished, 6U);
  const auto submissions = slurm_.calls("sbatch --parsable");
  ASSERT_EQ(submissions.size(), 1U);
  EXPECT_NE(submissions[0].find("--array=0-5%2"), std::string::npos) << submissions[0];
  const auto running = slurm_.lines("running");
  EXPECT_EQ(running.size(), 6U);
  EXPECT_EQ(*std::max_element(running.begin(), running.end()), "2");
  EXPECT_EQ(query("SELECT count(*) FROM attempt c JOIN run_edge USING(run_id) JOIN attempt p ON "
                  "p.run_id = parent_id WHERE c.start_us < p.end_us"),
            "0");
}

TEST_F(SlurmSchedule, SeveralArraysKeepToOneCap) {
  slurm_.be("largest", "4");  // so an array has three elements
  EXPECT_TRUE(run(slurm_head("steps = 10, step_ms = 40", 7, 2) + kOneRow).complete());
  const auto submissions = slurm_.calls("sbatch --parsable");
  ASSERT_EQ(submissions.size(), 3U);
  EXPECT_NE(submissions[0].find("--array=0-2%2"), std::string::npos) << submissions[0];
  const auto running = slurm_.lines("running_in_all");
  EXPECT_EQ(running.size(), 7U);
  EXPECT_EQ(*std::max_element(running.begin(), running.end()), "2");
}

TEST_F(SlurmSchedule, AJobThatIsSuspendedDoesNotHang) {
  slurm_.be("suspend");
  EXPECT_TRUE(run(slurm_head("steps = 2, step_ms = 2500", 1, 1) + "stall_timeout = 1\n" + kOneRow)
                  .complete());
  EXPECT_EQ(attempts("a"), "done:finished") << notes();
}

TEST_F(SlurmSchedule, AJobThatNoNodeCanStartIsGivenUp) {
  slurm_.be("no_start");
  const std::string text = slurm_head("steps = 4", 1, 1) + "retries = 1\n" + kOneRow;
  const ScheduleSummary summary = run(text);
  ASSERT_EQ(summary.problems.size(), 1U);
  EXPECT_NE(summary.problems[0].find("given up after 2 attempts"), std::string::npos)
      << summary.problems[0];
  EXPECT_NE(notes().find("launch failed requeued held"), std::string::npos) << notes();
  EXPECT_EQ(slurm_.calls("scontrol release").size(), 10U);
  slurm_.be_well("no_start");
  EXPECT_TRUE(run(text).complete());
}

TEST_F(SlurmSchedule, AKilledRunGoesOnInItsElement) {
  const ScheduleSummary summary =
      run(slurm_head(R"(steps = 6, script = ["crash@4", "done"])", 1, 1) + kOneRow);
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(attempts("a"), "transient:killed done:finished");
  EXPECT_EQ(query("SELECT first_step FROM attempt ORDER BY n"), "1 4");
  EXPECT_EQ(slurm_.calls("sbatch --parsable").size(), 1U);
  EXPECT_EQ(slurm_.calls("scontrol requeue 100_0").size(), 1U);
}

TEST_F(SlurmSchedule, AnElementThatIsForgottenIsReplaced) {
  const auto asker = when_at_work([&] { slurm_.be("forget"); });
  const ScheduleSummary summary =
      run(slurm_head(R"(steps = 60, step_ms = 10, script = ["crash@40", "done"])", 1, 1) + kOneRow);
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(slurm_.calls("sbatch --parsable").size(), 2U);
  EXPECT_NE(notes().find("cannot be put back"), std::string::npos) << notes();
}

TEST_F(SlurmSchedule, ASilentControllerIsWaitedFor) {
  slurm_.be("down");
  std::jthread repair([&] {  // once it was asked in vain
    wait_until([&] { return slurm_.calls("squeue").size() > 1; });
    slurm_.be_well("down");
  });
  EXPECT_TRUE(run(slurm_head("steps = 4", 2, 2) + kOneRow).complete());
  EXPECT_NE(notes().find("waited for"), std::string::npos) << notes();
  EXPECT_NE(notes().find("answers again"), std::string::npos) << notes();
  EXPECT_EQ(query("SELECT count(*) FROM attempt"), "2") << "silence is nobody's failure";
}

TEST_F(SlurmSchedule, ASubmissionThatWasHeardButNotAnsweredIsNotRepeated) {
  slurm_.be("lost_answer");
  EXPECT_TRUE(run(slurm_head("steps = 4", 2, 2) + kOneRow).complete());
  EXPECT_EQ(slurm_.calls("sbatch --parsable").size(), 1U);
}

TEST_F(SlurmSchedule, ARefusedSubmissionEndsTheSweepWithItsReason) {
  slurm_.be("refuse");
  try {
    run(slurm_head("steps = 4", 2, 2) + kOneRow);
    FAIL() << "nobody noticed";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("invalid partition"), std::string::npos);
  }
  slurm_.be_well("refuse");
  EXPECT_TRUE(run(slurm_head("steps = 4", 2, 2) + kOneRow).complete());
}

TEST_F(SlurmSchedule, ARunThatIsPutBackIntoTheQueueGoesOnFromItsCheckpoint) {
  const auto admin = when_at_work([&] {
    test::SlurmCluster::ask({"scontrol", "requeue", "100_0"});
  });
  EXPECT_TRUE(run(slurm_head("steps = 300, step_ms = 10", 1, 1) + kOneRow).complete());
  EXPECT_EQ(attempts("a"), "interrupted:user done:finished");
  EXPECT_EQ(slurm_.calls("scontrol requeue").size(), 1U) << "Slurm starts it again by itself";
  EXPECT_GT(std::stoi(query("SELECT first_step FROM attempt WHERE n = 2")), 1);
}

TEST_F(SlurmSchedule, WhatSomebodyCancelsIsNotStartedAgain) {
  const auto user = when_at_work([&] { test::SlurmCluster::ask({"scancel", "100_1"}); });
  const std::string text = slurm_head("steps = 150, step_ms = 10", 2, 1) + kOneRow;
  const ScheduleSummary summary = run(text);
  EXPECT_EQ(summary.done, 1U);
  ASSERT_EQ(summary.problems.size(), 1U);
  EXPECT_NE(summary.problems[0].find("taken out of the queue"), std::string::npos);
  EXPECT_TRUE(run(text).complete()) << "the same command continues";
}

TEST_F(SlurmSchedule, AStopRequestSavesWhatRunsAndEmptiesTheQueue) {
  const auto user = when_at_work([&] { stop_.request("test"); });
  const std::string text = slurm_head("steps = 300, step_ms = 10", 3, 1) + kOneRow;
  EXPECT_TRUE(run(text).interrupted);
  EXPECT_EQ(query("SELECT count(*) FROM run WHERE state = 'interrupted'"), "3");
  const std::string queue = test::SlurmCluster::ask({"squeue", "--name=x"});
  EXPECT_EQ(queue.find("PENDING"), std::string::npos) << queue;
}

TEST_F(SlurmSchedule, TheTimeThatIsLeftIsTheDeadline) {
  slurm_.be("left", "0:03\n");  // less than twice the grace: half of it is used
  const ScheduleSummary summary = run(slurm_head("steps = 250, step_ms = 10", 1, 1) + kOneRow);
  EXPECT_TRUE(summary.complete());
  EXPECT_TRUE(attempts("a").starts_with("interrupted:walltime ")) << attempts("a");
  EXPECT_TRUE(attempts("a").ends_with(" done:finished")) << attempts("a");
}

TEST_F(SlurmSchedule, SmallRunsShareAnElement) {
  const ScheduleSummary summary =
      run(slurm_head("steps = 4, step_ms = 20", 4, 2) + kOneRow,
          [](ScheduleOptions& options) { options.launch.runs_per_gpu = 2; });
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(slurm_.lines("running").size(), 2U);
  EXPECT_EQ(query("SELECT count(*) FROM run WHERE state = 'done'"), "4");
}

TEST_F(SlurmSchedule, JobsThatOutliveTheirAblateAreTakenUp) {
  std::ofstream(folder_ / "s.toml") << slurm_head("steps = 200, step_ms = 10", 2, 1) << kOneRow;
  {
    ChildProcess first(test::ablate_process(folder_.path(), {"sweep", "s.toml"}));
    when_at_work([&] { first.signal_group(SIGKILL); }).join();
    first.wait();
  }
  const CapturedRun second = test::run_ablate(folder_.path(), {"sweep", "s.toml", "--no-bench"});
  EXPECT_EQ(second.status.code, 0) << second.errors;
  EXPECT_NE(second.errors.find("adopted"), std::string::npos) << second.errors;
  EXPECT_EQ(slurm_.calls("sbatch --parsable").size(), 1U) << "its array serves on";
  workspace_.database = workspace_.out / "results.db";
  EXPECT_EQ(query("SELECT count(*) FROM attempt"), "2");
}

TEST_F(SlurmSchedule, StatusShowsWhereAJobWaits) {
  std::ofstream(folder_ / "s.toml") << slurm_head("steps = 6000, step_ms = 10", 2, 1) << kOneRow;
  ChildProcess sweep(test::ablate_process(folder_.path(), {"sweep", "s.toml"}));
  CapturedRun status;
  wait_until([&] {
    status = test::run_ablate(folder_.path(), {"status", "--json"});
    return status.output.find("\"state\": \"RUNNING\"") != std::string::npos &&
           status.output.find("\"images_per_s\": ") != std::string::npos;
  });
  EXPECT_NE(status.output.find("\"job\": \"100_1\""), std::string::npos) << status.output;
  EXPECT_NE(status.output.find("\"state\": \"PENDING\""), std::string::npos) << status.output;
  EXPECT_NE(status.output.find("\"state\": \"RUNNING\""), std::string::npos) << status.output;
  EXPECT_NE(status.output.find("\"images_per_s\": "), std::string::npos) << status.output;
  const CapturedRun text = test::run_ablate(folder_.path(), {"status"});
  EXPECT_NE(text.output.find(" of 6000, loss"), std::string::npos) << text.output;
  EXPECT_NE(text.output.find(" left, job 100_0"), std::string::npos) << text.output;
  sweep.signal_group(SIGINT);
  EXPECT_EQ(sweep.wait().code, 3);
}

TEST(SlurmExecutor, SaysWhatIsMissingWhereThereIsNoSlurm) {
  test::Variables variables;
  variables.set("PATH", "/nowhere");
  Launch launch;
  launch.executor = "slurm";
  Workspace workspace;
  workspace.out = "/tmp";
  try {
    make_executor(launch, workspace);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("login node"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace ablate
