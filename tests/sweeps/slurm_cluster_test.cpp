#include <algorithm>
#include <thread>

#include "tests/support/slurm.h"
#include "tests/sweeps/schedule_fixture.h"

namespace ablate {
namespace {

using namespace std::chrono_literals;

/// Sweeps of the stand-in trainer on a real Slurm of this machine.
class SlurmClusterSchedule : public test::Schedule {
 protected:
  void SetUp() override {
    if (!cluster_.why_not().empty()) GTEST_SKIP() << "no Slurm here: " << cluster_.why_not();
  }

  static std::string cluster_head(const std::string& model, int seeds, int at_a_time,
                                  const std::string& slurm = "grace = 60") {
    return cat("name = \"s\"\n[seeds]\ncount = ", seeds,
               "\n[run]\ndataset = { name = \"d\" }\nmodel = { name = \"fake\", ", model,
               " }\n[launch]\nexecutor = \"slurm\"\njobs = ", at_a_time,
               "\nslurm = { look_every = 0.5, ", slurm, " }\n[[variant]]\nlabel = \"a\"\n");
  }

  template <typename Action>
  std::jthread once_at_work(Action action) {
    return std::jthread([this, action] {
      const auto at_work = [&] {
        std::error_code ignored;
        for (const auto& run :
             std::filesystem::directory_iterator(workspace_.out / "runs", ignored)) {
          if (std::filesystem::exists(run.path() / "checkpoints" / "newest")) return true;
        }
        return false;
      };
      for (int i = 0; i < 6000 && !at_work(); ++i) std::this_thread::sleep_for(10ms);
      action();
    });
  }

  /// "1_0" of the only array.
  static std::string first_running() {
    const std::string list =
        test::SlurmCluster::ask({"squeue", "-h", "-r", "-t", "R", "-o", "%F_%K"});
    return list.substr(0, list.find('\n'));
  }

  test::SlurmCluster cluster_;
};

TEST_F(SlurmClusterSchedule, AnArrayRunsWithItsCap) {
  std::ptrdiff_t most = 0;
  std::jthread sampling([&](const std::stop_token& over) {
    for (; !over.stop_requested(); std::this_thread::sleep_for(100ms)) {
      const std::string list = test::SlurmCluster::ask({"squeue", "-h", "-r", "-t", "R"});
      most = std::max(most, std::count(list.begin(), list.end(), '\n'));
    }
  });
  EXPECT_TRUE(run(cluster_head("steps = 40, step_ms = 50", 4, 2)).complete());
  sampling.request_stop();
  sampling.join();
  EXPECT_LE(most, 2);
  EXPECT_NE(query("SELECT count(*) FROM attempt a JOIN attempt b ON a.attempt_id < b.attempt_id "
                  "WHERE a.start_us < b.end_us AND b.start_us < a.end_us"),
            "0")
      << "side by side";
  const std::string jobs =
      test::SlurmCluster::ask({"squeue", "-h", "-t", "all", "-r", "-o", "%F %T"});
  EXPECT_EQ(std::count(jobs.begin(), jobs.end(), '\n'), 4) << jobs;
  EXPECT_EQ(jobs.find("CANCELLED"), std::string::npos) << jobs;
  EXPECT_EQ(query("SELECT count(DISTINCT slurm_job) FROM attempt"), "4");
}

TEST_F(SlurmClusterSchedule, AControllerThatIsStartedAnewFindsTheSweepWaiting) {
  const auto admin = once_at_work([&] {
    cluster_.end("slurmctld");
    std::this_thread::sleep_for(2s);
    cluster_.revive();
  });
  EXPECT_TRUE(run(cluster_head("steps = 30, step_ms = 50", 3, 1)).complete());
  EXPECT_EQ(query("SELECT count(*) FROM attempt"), "3") << notes_.str();
}

TEST_F(SlurmClusterSchedule, WhatIsCancelledIsLeftAlone) {
  const auto user = once_at_work([&] { test::SlurmCluster::ask({"scancel", first_running()}); });
  const std::string text = cluster_head("steps = 100, step_ms = 50", 1, 1);
  const ScheduleSummary summary = run(text);
  ASSERT_EQ(summary.problems.size(), 1U);
  EXPECT_NE(summary.problems[0].find("taken out of the queue"), std::string::npos);
  EXPECT_TRUE(run(text).complete()) << "the same command continues";
  EXPECT_GT(std::stoi(query("SELECT first_step FROM attempt WHERE n = 2")), 1);
}

class LongSlurmClusterSchedule : public SlurmClusterSchedule {};

TEST_F(LongSlurmClusterSchedule, ARunThatIsLongerThanAJobGoesOnInTheSameElement) {
  // A minute is less than twice the grace: a job stops after half of it.
  EXPECT_TRUE(
      run(cluster_head("steps = 360, step_ms = 100", 1, 1, "time = \"1\", grace = 50")).complete());
  // Slurm's warning may come up to a minute early, before our own deadline.
  EXPECT_EQ(query("SELECT outcome FROM attempt ORDER BY n"), "interrupted done");
  const std::string jobs = test::SlurmCluster::ask({"squeue", "-h", "-t", "all", "-r"});
  EXPECT_EQ(std::count(jobs.begin(), jobs.end(), '\n'), 1) << jobs;
}

TEST_F(LongSlurmClusterSchedule, ATimeLimitThatComesEarlyCostsNoStep) {
  const auto admin = once_at_work([&] {
    test::SlurmCluster::ask({"scontrol", "update", "JobId=" + first_running(), "EndTime=now+3"});
  });
  EXPECT_TRUE(
      run(cluster_head("steps = 1000, step_ms = 50", 1, 1, "time = \"5\", grace = 1")).complete());
  EXPECT_EQ(attempts("a"), "interrupted:user done:finished");
  EXPECT_EQ(query("SELECT b.first_step - a.last_step FROM attempt a JOIN attempt b USING(run_id) "
                  "WHERE a.n = 1 AND b.n = 2"),
            "1");
}

TEST_F(LongSlurmClusterSchedule, AJobWithMoreRightPutsARunBackIntoTheQueue) {
  const auto other = once_at_work([&] {
    test::SlurmCluster::ask(
        {"sbatch", "-p", "urgent", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2"});
  });
  EXPECT_TRUE(run(cluster_head("steps = 400, step_ms = 50", 1, 1)).complete());
  EXPECT_EQ(attempts("a"), "interrupted:user done:finished");
}

TEST_F(LongSlurmClusterSchedule, ANodeThatFailsIsReplacedByAnother) {
  std::string node;
  const auto failure = once_at_work([&] {
    node = test::SlurmCluster::ask({"squeue", "-h", "-t", "R", "-o", "%N"}).substr(0, 2);
    cluster_.fail(node);
  });
  EXPECT_TRUE(run(cluster_head("steps = 200, step_ms = 50", 1, 1)).complete());
  EXPECT_EQ(attempts("a"), "transient:killed done:finished") << notes_.str();
  EXPECT_GT(std::stoi(query("SELECT first_step FROM attempt WHERE n = 2")), 1);
}

}  // namespace
}  // namespace ablate
