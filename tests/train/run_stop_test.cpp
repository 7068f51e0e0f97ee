#include <csignal>
#include <fstream>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/probe.h"
#include "tests/train/run_tables.h"

// A stop that one rank hears of ends all ranks at one step boundary, with a checkpoint.

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

/// Runs with a stop signal on each rank; what `ask` does with it happens before step 2.
class StoppedRun {
 public:
  StoppedRun(int ranks, const StopOptions& options, int asking_rank,
             const std::function<void(StopSignal&)>& ask)
      : spec_(resolve_table(kTinyVit, {kWithProbe}, ranks)), paths(out_.path(), spec_.id()) {
    std::vector<std::unique_ptr<StopSignal>> signals;
    for (int rank = 0; rank < ranks; ++rank) {
      signals.push_back(
          std::make_unique<StopSignal>(rank == asking_rank ? options : StopOptions{}));
    }
    const Probe probe(
        before_step(2, asking_rank, [&] { ask(*signals[static_cast<std::size_t>(asking_rank)]); }));
    returned.resize(static_cast<std::size_t>(ranks));
    run_ranks(ranks, [&](Communicator& world) {
      const auto rank = static_cast<std::size_t>(world.rank());
      returned[rank] = execute_run(spec_, environment_in(out_.path()), world, *signals[rank]);
    });
  }

  const TempFolder& out() const { return out_; }
  const RunSpec& spec() const { return spec_; }

 private:
  TempFolder out_;
  RunSpec spec_;

 public:
  RunPaths paths;
  std::vector<Outcome> returned;  ///< by rank
};

void expect_stopped(const StoppedRun& run, const std::string& cause, const std::string& reason) {
  constexpr std::int64_t kStep = 3;  // asked before step 2, answered behind it
  for (std::size_t rank = 0; rank < run.returned.size(); ++rank) {
    const Outcome spooled = spooled_outcome(run.paths.spool(1, static_cast<int>(rank)));
    for (const Outcome& outcome : {run.returned[rank], spooled}) {
      EXPECT_EQ(outcome.state, OutcomeState::Interrupted) << rank;
      EXPECT_EQ(outcome.exit_code, static_cast<int>(ExitCode::Interrupted)) << rank;
      EXPECT_EQ(outcome.cause, cause) << rank;
      EXPECT_NE(outcome.detail.find(reason), std::string::npos) << rank << ": " << outcome.detail;
      EXPECT_EQ(outcome.last_step, kStep) << rank;
      EXPECT_EQ(outcome.images_seen, kStep * 32) << rank;
    }
  }
  EXPECT_TRUE(fs::exists(run.paths.checkpoints() / "step-000000003" / "manifest.json"));
  EXPECT_FALSE(fs::exists(run.paths.final_directory()));
}

TEST(RunStop, IsAgreedUponWhicheverRankHearsOfIt) {
  for (const auto& [ranks, asking] : {std::pair{1, 0}, {2, 0}, {2, 1}, {4, 2}}) {
    SCOPED_TRACE(cat("rank ", asking, " of ", ranks));
    const StoppedRun run(ranks, {}, asking, [](StopSignal& stop) { stop.request("node drained"); });
    expect_stopped(run, "preempted", "node drained");
  }
}

TEST(RunStop, FollowsAStopFile) {
  const TempFolder folder;
  const fs::path file = folder / "stop";
  StopOptions options;
  options.stop_file = file;
  options.file_interval = std::chrono::milliseconds(0);
  const StoppedRun run(2, options, 1, [&](StopSignal&) { std::ofstream(file) << ""; });
  expect_stopped(run, "preempted", cat("stop file ", file.string()));
}

TEST(RunStop, FollowsASignal) {
  const StopHandlers handlers;
  const StoppedRun run(1, {}, 0, [](StopSignal&) { ASSERT_EQ(std::raise(SIGUSR1), 0); });
  expect_stopped(run, "preempted", "SIGUSR1");
}

TEST(RunStop, ADeadlineIsNoPreemption) {
  for (const int asking : {0, 1}) {
    // Past from the start: the run makes one step.
    StopOptions options;
    options.deadline = std::chrono::system_clock::now();
    const StoppedRun run(2, options, asking, [](StopSignal&) { FAIL() << "too late"; });
    for (int rank = 0; rank < 2; ++rank) {
      const Outcome outcome = spooled_outcome(run.paths.spool(1, rank));
      EXPECT_EQ(outcome.state, OutcomeState::Interrupted);
      EXPECT_EQ(outcome.cause, "walltime") << rank << ", asked on " << asking;
      EXPECT_EQ(outcome.last_step, 1);
    }
  }
}

TEST(RunStop, InTheLastStepComesTooLate) {
  const RunSpec spec = resolve_table(kTinyVit, {kWithProbe});
  const TempFolder out;
  StopSignal stop;
  const Probe probe(before_step(7, 0, [&] { stop.request("late"); }));
  const auto self = make_self_communicator();
  const Outcome outcome = execute_run(spec, environment_in(out.path()), *self, stop);
  EXPECT_EQ(outcome.state, OutcomeState::Done);
  EXPECT_EQ(outcome.cause, "finished");
  EXPECT_EQ(outcome.last_step, 8);
}

TEST(RunStop, TheStoppedRunGoesOn) {
  const StoppedRun run(2, {}, 1, [](StopSignal& stop) { stop.request("now"); });
  EXPECT_EQ(run.returned[0].state, OutcomeState::Interrupted);
  Environment environment = environment_in(run.out().path());
  environment.attempt = 2;
  EXPECT_EQ(run_attempt(run.spec(), environment, 2).state, OutcomeState::Done);
  const TempFolder whole;
  expect_same_bits(run_small(run.spec(), whole.path(), 2), read_run(run.spec(), environment, 2));
}

}  // namespace
}  // namespace ablate::test
