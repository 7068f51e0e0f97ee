#include "tests/support/slurm.h"

#include <gtest/gtest.h>

#include "tests/end_to_end/sweep_results.h"
#include "tests/end_to_end/tiny_sweep.h"

namespace ablate {
namespace {

using test::Workbench;

/// Real training on a real Slurm of this machine.
class LongSlurmTraining : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cluster_.why_not().empty()) GTEST_SKIP() << "no Slurm here: " << cluster_.why_not();
  }

  std::map<std::string, test::RunResult> sweep(const std::string& name,
                                               std::vector<std::string> settings) {
    const Workbench bench(folder_.path());
    settings.insert(settings.begin(), {"sweep", bench.write("tiny.toml", test::kTinySweep), "--out",
                                       name, "--no-bench"});
    const CapturedRun run = bench.ablate(settings);
    EXPECT_EQ(run.status.code, 0) << run.errors;
    said_ = run.errors;
    test::expect_sound_records(folder_ / name);
    return test::read_results(folder_ / name);
  }

  /// Where the ranks of the attempts ran, and by what: the first line of their logs.
  std::string logs(const std::string& out) {
    ProcessOptions options;
    options.arguments = {"bash", "-c",
                         "head -qn1 " + (folder_ / out).string() + "/runs/*/attempt-1/log.txt"};
    return run_and_capture(options).output;
  }

  test::TempFolder folder_;
  test::SlurmCluster cluster_{4};
  std::string said_;
};

const std::vector<std::string> kOnSlurm = {"launch.executor=slurm", "launch.slurm.look_every=0.5",
                                           "launch.slurm.grace=60"};

std::vector<std::string> on_slurm(std::vector<std::string> settings) {
  settings.insert(settings.end(), kOnSlurm.begin(), kOnSlurm.end());
  return settings;
}

TEST_F(LongSlurmTraining, TwelveRunsEndAsUnderMpirun) {
  const auto expected = sweep("mpirun", {"seeds.count=3", "launch.ranks=2"});
  EXPECT_EQ(expected.size(), 12U);
  const auto got = sweep("slurm", on_slurm({"seeds.count=3", "launch.ranks=2", "launch.jobs=2"}));
  test::expect_equal_results(expected, got);
  EXPECT_TRUE(test::contains(said_, "of 12 runs, at most 2 at a time")) << said_;
  EXPECT_EQ(test::count_of(logs("slurm"), "2 ranks by "), 12U) << logs("slurm");
}

TEST_F(LongSlurmTraining, FourRanksOverTwoNodesTrainWhatFourOnOneDo) {
  const auto one = sweep("one", on_slurm({"seeds.count=1", "launch.ranks=4"}));
  const auto two =
      sweep("two", on_slurm({"seeds.count=1", "launch.ranks=4", "launch.slurm.nodes=2"}));
  EXPECT_EQ(test::count_of(logs("two"), "on n[1-2]: 4 ranks"), 4U) << logs("two");
  test::expect_equal_results(one, two);
}

TEST_F(LongSlurmTraining, RanksFindEachOtherWithoutMpi) {
  const auto expected = sweep("mpirun", {"seeds.count=1", "launch.ranks=2"});
  const auto got =
      sweep("own", on_slurm({"seeds.count=1", "launch.ranks=2", "launch.slurm.launcher=own"}));
  EXPECT_EQ(test::count_of(logs("own"), "2 ranks by own"), 4U) << logs("own");
  ASSERT_EQ(got.size(), expected.size());
  for (const auto& [id, result] : expected) EXPECT_EQ(got.at(id).state, result.state);
}

TEST_F(LongSlurmTraining, SrunAloneIsEnoughWhereRanksMeetByTcp) {
  const std::string hello = test::program("ablate-train");
  test::Variables variables;
  variables.set("ABLATE_RENDEZVOUS", "tcp");
  const CapturedRun met = cluster_.run({"srun", "-N1", "-n3", "--mpi=none", hello, "hello"});
  EXPECT_EQ(met.status.code, 0) << met.errors;
  for (const char* rank : {"rank 0 of 3", "rank 1 of 3", "rank 2 of 3"}) {
    EXPECT_TRUE(test::contains(met.output, rank)) << met.output << met.errors;
  }
  EXPECT_EQ(met.errors, "") << "they part in peace";
}

TEST_F(LongSlurmTraining, SrunWithoutAProcessManagerIsToldWhatToDo) {
  const std::string hello = test::program("ablate-train");
  const CapturedRun lost = cluster_.run({"srun", "-N1", "-n2", "--mpi=none", hello, "hello"});
  EXPECT_NE(lost.status.code, 0);
  EXPECT_TRUE(test::contains(lost.errors, "use srun --mpi=pmix")) << lost.errors;
  const CapturedRun alone = cluster_.run({"srun", "-n1", "--mpi=none", hello, "hello"});
  EXPECT_EQ(alone.status.code, 0) << alone.errors;
  EXPECT_TRUE(test::contains(alone.output, "rank 0 of 1")) << alone.output;
}

TEST_F(LongSlurmTraining, DrillsEndAsPromised) {
  const Workbench bench(folder_.path());
  const CapturedRun run = bench.ablate({"drill", "--executor", "slurm", "--only", "kill", "--only",
                                        "usr1", "--only", "ablate", "--only", "controller"});
  EXPECT_EQ(run.status.code, 0) << run.output << run.errors;
  EXPECT_TRUE(test::contains(run.output, "5 of 5 ended as promised")) << run.output;
}

}  // namespace
}  // namespace ablate
