#include "runner/worker/run_pack.h"

#include <optional>
#include <thread>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/lease.h"
#include "runner/worker/run_history.h"
#include "tests/core/expect_error.h"
#include "tests/worker/packed_runs.h"

// Several runs as threads of one process.

namespace ablate::test {
namespace {

/// Every step multiplies the weights by -999, until nothing is finite.
const char* const kDiverging = R"(optimizer={name="sgd",lr=1000.0,weight_decay=1.0})";
const char* const kEvaluateOnly = "epochs=0";

std::vector<RunSpec> different_specs() {
  return {packed_spec(1), packed_spec(2), packed_spec(2, {"clip_norm=0.5"}),
          packed_spec(3, {R"(optimizer={name="sgd",lr=0.05,nesterov=true})"})};
}

TEST(RunPack, EveryRunHasTheBitsItHasAlone) {
  const TempFolder alone, together;
  const std::vector<RunSpec> specs = different_specs();
  const std::vector<RunRecord> expected = run_one_by_one(specs, alone.path());
  std::vector<PackedRun> runs;
  for (const RunSpec& spec : specs) runs.push_back(packed_run(spec, together.path()));
  EXPECT_EQ(run_pack(std::move(runs), {}), 0);
  for (std::size_t i = 0; i < specs.size(); ++i) {
    expect_same_bits(read_run(specs[i], environment_in(together.path())), expected[i]);
  }
}

TEST(RunPack, EveryAttemptSaysHowManySharedItsProcess) {
  const TempFolder out;
  const std::vector<RunSpec> specs = {packed_spec(1, {kEvaluateOnly}),
                                      packed_spec(2, {kEvaluateOnly}),
                                      packed_spec(3, {kEvaluateOnly})};
  std::vector<PackedRun> runs;
  for (const RunSpec& spec : specs) runs.push_back(packed_run(spec, out.path()));
  EXPECT_EQ(run_pack(std::move(runs), {.at_a_time = 2}), 0);
  for (const RunSpec& spec : specs) {
    const auto spool = RunPaths(out.path(), spec.id()).spool(1, 0);
    EXPECT_EQ(spooled_outcome(spool).state, OutcomeState::Done);
    for (const Facts& facts : records_of<Facts>(spool)) {
      if (facts.kind != FactKind::Environment) continue;
      EXPECT_EQ(nlohmann::json::parse(facts.json).at("runs_in_process"), 2);
    }
  }
}

TEST(RunPack, ChildrenWaitForTheirParents) {
  const TempFolder alone, together;
  const Family family(1);
  const std::vector<RunRecord> expected =
      run_one_by_one({family.parent.spec, family.child.spec}, alone.path());
  EXPECT_EQ(run_pack({packed_run(family.child.spec, together.path()),
                      packed_run(family.parent.spec, together.path())},
                     {}),
            0);
  expect_same_bits(read_run(family.parent.spec, environment_in(together.path())), expected[0]);
  expect_same_bits(read_run(family.child.spec, environment_in(together.path())), expected[1]);
}

TEST(RunPack, ARunThatDivergesEndsAloneAndItsChildrenAreNotStarted) {
  const TempFolder alone, together;
  const RunSpec good = packed_spec(1);
  const ResolvedRun bad = resolve_packed(2, {kDiverging});
  const RunSpec child = resolve_packed(2, {}, &bad).spec;
  const RunRecord expected = run_small(good, alone.path());
  EXPECT_EQ(run_pack({packed_run(bad.spec, together.path()), packed_run(child, together.path()),
                      packed_run(good, together.path())},
                     {}),
            static_cast<int>(ExitCode::Diverged));
  EXPECT_EQ(spooled_outcome(RunPaths(together.path(), bad.spec.id()).spool(1, 0)).state,
            OutcomeState::Diverged);
  EXPECT_EQ(attempts_at(child, together.path()), 0);
  expect_same_bits(read_run(good, environment_in(together.path())), expected);
}

TEST(RunPack, ARunThatCannotBeginSaysWhyInItsSpool) {
  const TempFolder out;
  const RunSpec good = packed_spec(1, {kEvaluateOnly});
  RunSpec bad = packed_spec(2, {kEvaluateOnly});
  bad.parents.push_back({"init", good.id(), good.config_hash()});  // of another folder
  EXPECT_EQ(run_pack({packed_run(bad, out.path())}, {}), static_cast<int>(ExitCode::Failed));
  const RunPaths paths(out.path(), bad.id());
  EXPECT_EQ(spooled_outcome(paths.spool(1, 0)).state, OutcomeState::Failed);

  bad.dataset.name = "cifar10";  // which knows no such settings
  const RunPaths nowhere(out.path(), bad.id());
  EXPECT_EQ(run_pack({packed_run(bad, out.path()), packed_run(good, out.path())}, {.at_a_time = 1}),
            static_cast<int>(ExitCode::BadSpec));
  const Outcome outcome = spooled_outcome(nowhere.spool(1, 0));
  EXPECT_EQ(outcome.state, OutcomeState::Failed);
  EXPECT_NE(outcome.detail.find("cifar10"), std::string::npos) << outcome.detail;
  EXPECT_EQ(spooled_outcome(RunPaths(out.path(), good.id()).spool(1, 0)).state, OutcomeState::Done);
}

TEST(RunPack, AStopFileOfOneRunLeavesTheOthersAlone) {
  const TempFolder out;
  const RunSpec stopped = packed_spec(1), other = packed_spec(2);
  const RunPaths paths(out.path(), stopped.id());
  make_directories(paths.directory);
  write_file_atomic(paths.stop_file(), "stop");
  EXPECT_EQ(run_pack({packed_run(stopped, out.path()), packed_run(other, out.path())}, {}),
            static_cast<int>(ExitCode::Interrupted));
  EXPECT_EQ(spooled_outcome(paths.spool(1, 0)).last_step, 1);
  EXPECT_EQ(spooled_outcome(RunPaths(out.path(), other.id()).spool(1, 0)).state,
            OutcomeState::Done);
}

TEST(RunPack, ARunOfASharedFolderIsLeftToWhoHasIt) {
  const TempFolder out;
  const RunSpec done = packed_spec(1, {kEvaluateOnly}), missing = packed_spec(2, {kEvaluateOnly});
  for (const RunSpec& spec : {done, missing}) write_spec(spec, out.path());
  PackedRun run = packed_run(done, out.path());
  EXPECT_EQ(run_pack({run}, {.shared = true}), 0);
  EXPECT_EQ(run_pack({run, packed_run(missing, out.path())}, {.shared = true}), 0);
  EXPECT_EQ(attempts_at(done, out.path()), 1) << "a run that is done is not started again";
  EXPECT_EQ(attempts_at(missing, out.path()), 1);
}

TEST(RunPack, WaitsForARunThatAnotherProcessHolds) {
  const TempFolder out;
  const RunSpec held = packed_spec(1, {kEvaluateOnly}), free = packed_spec(2, {kEvaluateOnly});
  const RunPaths held_paths(out.path(), held.id()), free_paths(out.path(), free.id());
  std::optional<Lease> other = Lease::take(held_paths.lease(), "the run");
  int code = -1;
  std::jthread work([&] {
    code = run_pack({packed_run(held, out.path()), packed_run(free, out.path())},
                    {.at_a_time = 1, .shared = true});
  });
  for (int i = 0; i < 6000 && !last_outcome(free_paths); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(attempts_at(free, out.path()), 1);
  EXPECT_EQ(attempts_at(held, out.path()), 0);
  other.reset();
  work.join();
  EXPECT_EQ(code, 0);
  EXPECT_EQ(attempts_at(held, out.path()), 1);
  EXPECT_FALSE(std::filesystem::exists(held_paths.lease()));
}

TEST(RunPack, NamesNoRunTwice) {
  const TempFolder out;
  const PackedRun run = packed_run(packed_spec(1), out.path());
  EXPECT_THROW(run_pack({run, run}, {}), SpecError);
}

}  // namespace
}  // namespace ablate::test
