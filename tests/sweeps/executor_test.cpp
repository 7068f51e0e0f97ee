#include "sweeps/executor.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "sweeps/gpus.h"
#include "sweeps/live_attempt.h"

namespace ablate {
namespace {

Workspace workspace() {
  Workspace workspace;
  workspace.out = "/o";
  workspace.data = {{"cifar100", "/d"}};
  workspace.train_program = "/p/ablate-train";
  return workspace;
}

bool has_pair(const std::vector<std::string>& words, const std::string& key,
              const std::string& value) {
  const auto found = std::find(words.begin(), words.end(), key);
  return found != words.end() && found + 1 != words.end() && *(found + 1) == value;
}

TEST(LocalCommand, OneRankNeedsNoLauncher) {
  Launch launch;
  launch.threads = 3;
  const ProcessOptions options = local_command({{"abc", 2, 5, {}}}, {}, launch, workspace());
  EXPECT_EQ(options.arguments[0], "/p/ablate-train");
  EXPECT_EQ(options.arguments[1], "run");
  EXPECT_EQ(options.arguments[2], "/o/runs/abc/spec.json");
  EXPECT_TRUE(has_pair(options.arguments, "--attempt", "2"));
  EXPECT_TRUE(has_pair(options.arguments, "--fence", "5"));
  EXPECT_TRUE(has_pair(options.arguments, "--threads", "3"));
  EXPECT_TRUE(has_pair(options.arguments, "--data", "cifar100=/d"));
  EXPECT_TRUE(has_pair(options.arguments, "--device", "cpu"));
  EXPECT_EQ(options.output_file, "/o/runs/abc/attempt-2/log.txt");
}

TEST(LocalCommand, RanksYieldOnlyWhenTheyShareCores) {
  Launch launch;
  launch.ranks = 2;
  const auto yields = [&](std::vector<int> cpus) {
    const auto options =
        local_command({{"abc", 1, 1, {}}}, {.cpus = std::move(cpus)}, launch, workspace());
    EXPECT_EQ(options.arguments[0], "mpirun");
    EXPECT_TRUE(has_pair(options.arguments, "-n", "2"));
    return std::any_of(options.environment.begin(), options.environment.end(),
                       [](const auto& e) { return e.first == "OMPI_MCA_mpi_yield_when_idle"; });
  };
  EXPECT_TRUE(yields({0}));
  EXPECT_FALSE(yields({0, 1}));
}

TEST(LocalCommand, RunsOfOneProcessAreNamedWithTheirAttemptsInOrder) {
  const ProcessOptions options =
      local_command({{"abc", 2, 5, "/w"}, {"def", 1, 7, "/w"}}, {.gpus = "GPU-1"}, {}, workspace());
  EXPECT_EQ(std::vector(options.arguments.begin(), options.arguments.begin() + 4),
            (std::vector<std::string>{"/p/ablate-train", "run", "/o/runs/abc/spec.json",
                                      "/o/runs/def/spec.json"}));
  const std::string line = join(options.arguments, " ");
  EXPECT_NE(line.find(" --attempt 2 --fence 5 --attempt 1 --fence 7 --init /w "), std::string::npos)
      << line;
  EXPECT_TRUE(has_pair(options.arguments, "--device", "auto"));
  EXPECT_NE(std::find(options.environment.begin(), options.environment.end(),
                      std::pair<std::string, std::string>("CUDA_VISIBLE_DEVICES", "GPU-1")),
            options.environment.end());
}

TEST(GpuPlaces, ARankHasAGpuToItself) {
  const std::vector<Gpu> gpus = {{"a", 8}, {"b", 4}, {"c", 8}};
  const auto groups = [&](int ranks) {
    std::vector<std::string> names;
    for (const Place& place : gpu_places(gpus, ranks)) names.push_back(place.gpus);
    return names;
  };
  EXPECT_EQ(groups(1), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(groups(2), (std::vector<std::string>{"a,b"})) << "the third is left over";
  EXPECT_EQ(gpu_places(gpus, 2)[0].gpu_bytes, 4U);
  EXPECT_TRUE(gpu_places(gpus, 4).empty());
}

TEST(DivideCpus, PartsAreDisjointAndComplete) {
  const std::vector<int> cpus = {0, 2, 4, 6, 8};
  for (int jobs = 2; jobs <= 5; ++jobs) {
    std::vector<int> all;
    for (const auto& part : divide_cpus(cpus, jobs)) {
      EXPECT_GE(part.size(), cpus.size() / static_cast<std::size_t>(jobs));
      all.insert(all.end(), part.begin(), part.end());
    }
    EXPECT_EQ(all, cpus) << jobs;
  }
}

TEST(DivideCpus, OneJobIsNotBound) {
  EXPECT_EQ(divide_cpus({0, 1}, 1), (std::vector<std::vector<int>>{{}}));
}

TEST(DivideCpus, MoreJobsThanCoresIsAnError) { EXPECT_THROW(divide_cpus({0, 1}, 3), SpecError); }

TEST(OutcomeOfExit, FollowsTheExitCodes) {
  const auto state = [](int code) { return outcome_of_exit(ExitStatus{.code = code}).state; };
  EXPECT_EQ(state(3), OutcomeState::Interrupted);
  EXPECT_EQ(state(4), OutcomeState::Transient);
  EXPECT_EQ(state(5), OutcomeState::Diverged);
  EXPECT_EQ(state(2), OutcomeState::Failed);
  EXPECT_EQ(state(1), OutcomeState::Failed);
  EXPECT_EQ(state(137), OutcomeState::Transient);
  EXPECT_EQ(state(-1), OutcomeState::Transient);
  // Leaving in peace without an outcome is a bug, never a success.
  EXPECT_EQ(state(0), OutcomeState::Failed);
}

}  // namespace
}  // namespace ablate
