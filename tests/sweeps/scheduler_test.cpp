#include "sweeps/scheduler.h"

#include <chrono>
#include <optional>
#include <thread>

#include <unistd.h>

#include "results/curve.h"
#include "runner/core/files.h"
#include "runner/core/lease.h"
#include "runner/core/run_paths.h"
#include "tests/sweeps/schedule_fixture.h"

namespace ablate {
namespace {

using test::Schedule;

TEST_F(Schedule, RunsChildrenAfterTheirParents) {
  const ScheduleSummary summary = run(head() +
                                      "[[variant]]\nlabel = \"child\"\nfrom = \"parent\"\n"
                                      "[[variant]]\nlabel = \"parent\"\n");
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(summary.done, 2U);
  EXPECT_EQ(states(), "done done");
  EXPECT_EQ(query("SELECT label FROM attempt JOIN run USING(run_id) JOIN sweep_variant "
                  "USING(variant_id) ORDER BY start_us"),
            "parent child");
  EXPECT_EQ(query("SELECT value FROM final JOIN metric USING(metric_id) WHERE name = 'top1'"),
            "70.0 70.0");
}

TEST_F(Schedule, ASecondStartRunsNothing) {
  const std::string text = head() + "[[variant]]\nlabel = \"a\"\n";
  run(text);
  const ScheduleSummary again = run(text);
  EXPECT_TRUE(again.complete());
  EXPECT_EQ(again.finished, 0U);
  EXPECT_EQ(again.done, 1U);
  EXPECT_EQ(attempts("a"), "done:finished");
}

TEST_F(Schedule, ARunThatIsComputedElsewhereIsLeftAlone) {
  const std::string text = head() +
                           "[[variant]]\nlabel = \"a\"\n"
                           "[[variant]]\nlabel = \"b\"\nmodel = { name = \"fake\", steps = 7 }\n";
  std::optional<Lease> other;
  const ScheduleSummary summary = run(text, [&](ScheduleOptions&) {
    const std::string id =
        query("SELECT run_uid FROM run JOIN sweep_variant USING(variant_id) WHERE label = 'a'");
    other = Lease::take(RunPaths(workspace_.out, id).lease(), "the run");
  });
  ASSERT_EQ(summary.problems.size(), 1U);
  EXPECT_NE(summary.problems[0].find(cat("computed by process ", ::getpid())), std::string::npos)
      << summary.problems[0];
  EXPECT_EQ(attempts("a"), "");
  EXPECT_EQ(attempts("b"), "done:finished");
  other.reset();
  EXPECT_TRUE(run(text).complete());
}

TEST_F(Schedule, AKilledRunGoesOnFromItsCheckpoint) {
  const ScheduleSummary summary =
      run(head(R"(steps = 6, script = ["crash@4", "done"])") + "[[variant]]\nlabel = \"a\"\n");
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(attempts("a"), "transient:killed done:finished");
  EXPECT_EQ(query("SELECT first_step FROM attempt ORDER BY n"), "1 4");
  ResultStore store(workspace_.database, ResultStore::Mode::ReadOnly);
  const auto curve = read_curve(store, query("SELECT run_uid FROM run"), "train/loss");
  ASSERT_EQ(curve.size(), 6U);
  for (std::size_t i = 0; i < curve.size(); ++i) {
    EXPECT_EQ(curve[i].step, static_cast<std::int64_t>(i) + 1);
    EXPECT_EQ(curve[i].value, 1.0 / static_cast<double>(i + 1));
  }
}

TEST_F(Schedule, TransientEndsWithoutProgressAreCapped) {
  const ScheduleSummary summary =
      run(head(R"(script = ["transient@3"])") + "[[variant]]\nlabel = \"a\"\n",
          [](ScheduleOptions& options) { options.launch.retries = 2; });
  ASSERT_EQ(summary.problems.size(), 1U);
  EXPECT_NE(summary.problems[0].find("given up after 3 attempts"), std::string::npos)
      << summary.problems[0];
  EXPECT_EQ(attempts("a"), "transient:oom transient:oom transient:oom");
}

TEST_F(Schedule, ProgressStartsTheCountOfRetriesAnew) {
  const ScheduleSummary summary =
      run(head(R"(script = ["crash@2", "crash@3", "crash@4", "crash@5", "done"])") +
              "[[variant]]\nlabel = \"a\"\n",
          [](ScheduleOptions& options) { options.launch.retries = 1; });
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(query("SELECT count(*) FROM attempt"), "5");
}

TEST_F(Schedule, FailedRunsAreTriedAgainOnlyWhenAsked) {
  const std::string text = head(R"(script = ["fail@2", "done"])") + "[[variant]]\nlabel = \"a\"\n";
  EXPECT_FALSE(run(text).complete());
  EXPECT_EQ(states(), "failed");
  EXPECT_FALSE(run(text).complete()) << "a known failure must not run again by itself";
  EXPECT_EQ(query("SELECT count(*) FROM attempt"), "1");
  {
    ResultStore store(workspace_.database);
    EXPECT_TRUE(store.retry(query("SELECT run_uid FROM run")));
  }
  EXPECT_TRUE(run(text).complete());
  EXPECT_EQ(states(), "done");
}

TEST_F(Schedule, FailedRunsHaveTheirOwnCap) {
  const ScheduleSummary summary =
      run(head(R"(script = ["fail@2", "done"])") + "[[variant]]\nlabel = \"a\"\n",
          [](ScheduleOptions& options) { options.launch.retries_failed = 1; });
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(attempts("a"), "failed:bug done:finished");
}

TEST_F(Schedule, DivergedRunsAreNeverTriedAgainAndTheirChildrenAreSkippedAloud) {
  const ScheduleSummary summary =
      run(head() +
              "[[variant]]\nlabel = \"bad\"\nmodel = { script = [\"diverge@2\"] }\n"
              "[[variant]]\nlabel = \"child\"\nfrom = \"bad\"\n"
              "[[variant]]\nlabel = \"good\"\n",
          [](ScheduleOptions& options) {
            options.launch.retries = 9;
            options.launch.retries_failed = 9;
          });
  EXPECT_EQ(summary.done, 1U);
  ASSERT_EQ(summary.problems.size(), 2U);
  EXPECT_NE(summary.problems[1].find("it begins from bad seed 0"), std::string::npos);
  EXPECT_NE(notes_.str().find("skipped  child seed 0"), std::string::npos);
  EXPECT_EQ(states(), "diverged planned done");
  EXPECT_EQ(query("SELECT count(*) FROM attempt"), "2");
}

TEST_F(Schedule, FailFastStopsTheOthersWithACheckpoint) {
  const ScheduleSummary summary =
      run(head() +
              "[[variant]]\nlabel = \"bad\"\nmodel = { script = [\"fail@1\"] }\n"
              "[[variant]]\nlabel = \"later\"\n",
          [](ScheduleOptions& options) { options.fail_fast = true; });
  EXPECT_EQ(summary.done, 0U);
  EXPECT_FALSE(summary.complete());
  EXPECT_FALSE(summary.interrupted);
  EXPECT_EQ(states(), "failed ready");
}

TEST_F(Schedule, ASilentRunIsKilledAndTriedAgain) {
  const ScheduleSummary summary =
      run(head(R"(script = ["hang@3", "done"])") + "[[variant]]\nlabel = \"a\"\n",
          [](ScheduleOptions& options) { options.launch.stall_timeout = 0.5; });
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(attempts("a"), "transient:hang done:finished");
}

TEST_F(Schedule, AStopRequestBeforeTheStartStartsNothing) {
  stop_.request("test");
  const ScheduleSummary summary = run(head() + "[[variant]]\nlabel = \"a\"\n");
  EXPECT_TRUE(summary.interrupted);
  EXPECT_EQ(query("SELECT count(*) FROM attempt"), "0");
}

TEST_F(Schedule, AStoppedRunIsContinuedToTheSameResult) {
  const std::string text = head("steps = 100, step_ms = 5") + "[[variant]]\nlabel = \"a\"\n";
  std::thread asker([&] {
    const auto runs = workspace_.out / "runs";
    const auto has_checkpoint = [&] {
      std::error_code ignored;
      for (const auto& entry : std::filesystem::directory_iterator(runs, ignored)) {
        if (std::filesystem::exists(entry.path() / "checkpoints" / "newest")) return true;
      }
      return false;
    };
    while (!has_checkpoint()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    stop_.request("test");
  });
  const ScheduleSummary first = run(text);
  asker.join();
  EXPECT_TRUE(first.interrupted);
  EXPECT_EQ(states(), "interrupted");
  const std::string id = query("SELECT run_uid FROM run");
  EXPECT_FALSE(std::filesystem::exists(RunPaths(workspace_.out, id).stop_file()));

  StopSignal fresh;
  const SweepSpec sweep = parse_sweep_text(text, "s.toml");
  const ResolvedSweep resolved = resolve_sweep(sweep, workspace_);
  ResultStore store(workspace_.database);
  take_up_folders(store, resolved, workspace_);
  const Plan plan = make_plan(sweep.launch, resolved.drafts, resolved.runs, &store, workspace_);
  Ingester ingester(store);
  const auto executor = make_local_executor(sweep.launch, workspace_);
  ProgressView view(notes_, {});
  EXPECT_TRUE(run_schedule(store, *executor, workspace_, scheduled_runs(resolved, plan),
                           {sweep.launch}, ingester, view, fresh)
                  .complete());
  EXPECT_EQ(attempts("a"), "interrupted:user done:finished");
  EXPECT_EQ(query("SELECT step || ':' || value FROM final JOIN metric USING(metric_id) WHERE name "
                  "= 'eval/top1'"),
            "100:150.0");
}

TEST_F(Schedule, ConcurrentRunsUseDisjointCores) {
  if (available_cpus().size() < 2) GTEST_SKIP() << "needs two cores";
  const ScheduleSummary summary = run(head("steps = 20, step_ms = 5") +
                                          "[[variant]]\nlabel = \"a\"\n"
                                          "[[variant]]\nlabel = \"b\"\nepochs = 2\n"
                                          "[[variant]]\nlabel = \"c\"\nepochs = 3\n",
                                      [](ScheduleOptions& options) { options.launch.jobs = 2; });
  EXPECT_TRUE(summary.complete());
  EXPECT_EQ(summary.finished, 3U);
}

TEST_F(Schedule, EveryAttemptRaisesTheFence) {
  run(head(R"(script = ["crash@2", "crash@3", "done"])") + "[[variant]]\nlabel = \"a\"\n");
  const RunPaths paths(workspace_.out, query("SELECT run_uid FROM run"));
  EXPECT_EQ(read_file(paths.fence()), "3");
  EXPECT_EQ(query("SELECT fence FROM attempt ORDER BY n"), "1 2 3");
}

TEST_F(Schedule, ResultsComeBackFromTheSpoolsOfALostDatabase) {
  const std::string text = head() + "[[variant]]\nlabel = \"a\"\n";
  run(text);
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::filesystem::remove(workspace_.database.string() + suffix);
  }
  const ScheduleSummary again = run(text);
  EXPECT_TRUE(again.complete());
  EXPECT_EQ(again.finished, 0U);
  EXPECT_EQ(query("SELECT count(*) FROM attempt"), "1");
}

TEST_F(Schedule, AProgramThatCannotBeStartedIsNobodysFault) {
  const std::string text = head() + "[[variant]]\nlabel = \"a\"\n";
  EXPECT_THROW(
      run(text, [&](ScheduleOptions&) { workspace_.train_program = folder_ / "no_program"; }),
      Error);
  workspace_.train_program = test::fake_train();
  EXPECT_EQ(states(), "interrupted");
  EXPECT_TRUE(run(text).complete());
}

}  // namespace
}  // namespace ablate
