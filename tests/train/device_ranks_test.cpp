#include <chrono>
#include <csignal>
#include <thread>

#include <gtest/gtest.h>

#include "distributed/launcher.h"
#include "tests/support/own_ranks.h"
#include "tests/support/run_records.h"
#include "tests/train/run_tables.h"

#if ABLATE_HAS_CUDA

// Whole runs on several CUDA devices: a process a rank, NCCL inside the captured step.

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

/// Two blocks on images of 16 x 16; an epoch is eight steps.
constexpr std::string_view kRanksVit = R"(
epochs = 3
global_batch = 64
mix_group = 8
clip_norm = 1.0
seed = 5
[dataset]
name = "synthetic"
train_size = 512
test_size = 100
classes = 6
image_size = 16
[model]
name = "vit"
image_size = 16
patch_size = 4
embed_dim = 64
depth = 2
num_heads = 2
drop_path = 0.1
[optimizer]
name = "adamw"
lr = 1e-3
)";

const std::map<std::string, std::vector<std::string>>& rank_cases() {
  static const std::map<std::string, std::vector<std::string>> cases{
      {"plain", {"ema_decay=0.9"}},
      {"fused", {"precision=bf16", "ema_decay=0.9"}},
      {"nose", {"precision=bf16", R"(methods=[{name="nose", layers=[1], dilution_epochs=2}])"}}};
  return cases;
}

RunSpec rank_spec(const std::string& name) {
  return resolve_table(kRanksVit, joined(all_randomness(), rank_cases().at(name)));
}

Environment environment_of_ranks(const fs::path& out, int attempt = 1) {
  Environment environment = environment_in(out, "cuda");
  environment.attempt = attempt;
  environment.checkpoint_steps = 1;
  environment.nccl_timeout = 20;
  return environment;
}

void make_deterministic() {
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setDeterministicAlgorithms(true, false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

/// Ends this process without warning as soon as the run has a checkpoint.
void die_in_the_middle(const std::stop_token& stop, const fs::path& checkpoints) {
  while (!stop.stop_requested()) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(checkpoints, ignored)) {
      if (entry.path().filename().string().starts_with("step-")) ::raise(SIGKILL);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

/// One rank of a run, in a process that DeviceRanksGpu started. With ABLATE_TEST_BLOW the last rank
/// dies.
TEST(DeviceRankGpu, RunsItsShare) {
  const char* out = std::getenv("ABLATE_TEST_OUT");
  if (out == nullptr) GTEST_SKIP() << "a part of DeviceRanksGpu";
  make_deterministic();
  StoreSession session(rendezvous_of_environment().value());
  Communicator& world = session.world();
  const RunSpec spec = rank_spec(std::getenv("ABLATE_TEST_CASE"));
  const bool struck = std::getenv("ABLATE_TEST_BLOW") != nullptr;
  std::jthread death;
  if (struck && world.rank() == world.size() - 1) {
    death = std::jthread(die_in_the_middle, RunPaths(out, spec.id()).checkpoints());
  }
  StopSignal stop;
  const int attempt = std::stoi(std::getenv("ABLATE_TEST_ATTEMPT"));
  const Outcome outcome = execute_run(spec, environment_of_ranks(out, attempt), world, stop);
  EXPECT_EQ(outcome.state, struck ? OutcomeState::Transient : OutcomeState::Done) << outcome.detail;
}

EnvironmentOfRanks rank_environment(const std::string& name, const fs::path& out, int attempt) {
  return {{"ABLATE_TEST_OUT", out.string()},
          {"ABLATE_TEST_CASE", name},
          {"ABLATE_TEST_ATTEMPT", std::to_string(attempt)}};
}

constexpr const char* kOneRank = "DeviceRankGpu.RunsItsShare";

class DeviceRanksGpu : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() < 2) GTEST_SKIP() << "needs 2 GPUs";
    make_deterministic();
  }

  /// For runs in these folders, by a run of its own: where algorithms are not known yet, each rank
  /// takes what it finds itself in the first step, and all take rank 0's from then on.
  static void choose_algorithms(const std::string& name, const std::vector<fs::path>& folders) {
    const TempFolder first;
    run_on_two(name, first.path());
    for (const fs::path& folder : folders) keep_gemm_choices(first.path(), folder);
  }

  /// The run's attempts so far included.
  static RunRecord run_on_two(const std::string& name, const fs::path& out, int attempt = 1) {
    expect_pass_as_ranks(2, kOneRank, rank_environment(name, out, attempt));
    return read_run(rank_spec(name), environment_of_ranks(out), attempt);
  }
};

TEST_P(DeviceRanksGpu, TwoRanksRepeatBitForBitAndFollowOne) {
  const TempFolder out;
  choose_algorithms(GetParam(), {out / "two", out / "again"});
  const RunRecord two = run_on_two(GetParam(), out / "two");
  expect_same_bits(two, run_on_two(GetParam(), out / "again"));

  const RunSpec spec = rank_spec(GetParam());
  const Environment environment = environment_of_ranks(out / "one");
  ASSERT_EQ(run_attempt(spec, environment).state, OutcomeState::Done);
  const RunRecord one = read_run(spec, environment);
  double farthest = 0;
  ASSERT_EQ(one.series.at("train/loss").size(), two.series.at("train/loss").size());
  for (const auto& [step, loss] : one.series.at("train/loss")) {
    farthest = std::max(farthest, std::abs(two.series.at("train/loss").at(step) / loss - 1));
  }
  std::cout << GetParam() << ": losses of two ranks differ from one's by " << farthest << "\n";
  EXPECT_LT(farthest, GetParam() == "plain" ? 2e-3 : 0.02);
}

/// The other rank finds out within environment_of_ranks' time-out, whatever it waits for.
TEST_P(DeviceRanksGpu, AKilledRankEndsTheAttemptAndTheNextOneGoesOnBitForBit) {
  const TempFolder out, meeting;
  choose_algorithms(GetParam(), {out / "calm", out / "struck"});
  const RunRecord calm = run_on_two(GetParam(), out / "calm");
  EnvironmentOfRanks environment = rank_environment(GetParam(), out / "struck", 1);
  environment.emplace_back("ABLATE_TEST_BLOW", "1");
  auto ranks = start_ranks(2, kOneRank, meeting.path(), environment);
  ASSERT_TRUE(ranks[0].wait_for(120)) << "the other rank waits for ever";
  EXPECT_EQ(ranks[1].wait().signal, SIGKILL);
  const RunSpec spec = rank_spec(GetParam());
  EXPECT_FALSE(fs::exists(RunPaths(out / "struck", spec.id()).final_weights()));
  expect_same_bits(calm, run_on_two(GetParam(), out / "struck", 2));
}

INSTANTIATE_TEST_SUITE_P(Cases, DeviceRanksGpu, testing::Values("plain", "fused", "nose"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace ablate::test

#endif  // ABLATE_HAS_CUDA
