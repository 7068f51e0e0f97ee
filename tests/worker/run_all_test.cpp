#include <algorithm>
#include <chrono>
#include <csignal>
#include <map>
#include <memory>
#include <thread>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/support/gpu.h"
#include "tests/worker/ablate_train.h"
#include "tests/worker/packed_runs.h"

// `ablate-train run --all`: every run of an output folder in one process, under blows.

namespace ablate::test {
namespace {

using namespace std::chrono_literals;

/// Two families whose runs take a second or so, and what they end with when nobody disturbs them.
struct Families {
  std::vector<RunSpec> specs;
  std::vector<RunRecord> expected;
  TempFolder calm;

  Families(const std::string& device, const Overrides& settings) {
    Overrides long_settings = settings, edited = settings;
    long_settings.emplace_back("epochs=20");
    edited.emplace_back(R"(methods=[{name="nose",remove=1,samples=32}])");
    for (const int seed : {1, 2}) {
      const ResolvedRun parent = resolve_packed(seed, long_settings);
      specs.push_back(parent.spec);
      specs.push_back(resolve_packed(seed, edited, &parent).spec);
    }
    for (const RunSpec& spec : specs) {
      PackedRun run = packed_run(spec, calm.path());
      run.environment.device = device;
      EXPECT_EQ(run_attempt(spec, run.environment).state, OutcomeState::Done);
      expected.push_back(read_run(spec, run.environment));
    }
  }
};

class RunAll : public testing::Test {
 protected:
  explicit RunAll(std::string device = "cpu", const Overrides& settings = {})
      : device_(std::move(device)) {
    static std::map<std::string, std::unique_ptr<const Families>> made;
    if (!made[device_]) made[device_] = std::make_unique<Families>(device_, settings);
    families_ = made[device_].get();
    for (const RunSpec& spec : specs()) write_spec(spec, out_.path());
    keep_gemm_choices(families_->calm.path(), out_.path());
  }
  const std::vector<RunSpec>& specs() const { return families_->specs; }

  ProcessOptions command() const {
    ProcessOptions options;
    options.arguments = {program("ablate-train"),
                         "run",
                         "--all",
                         "--out",
                         out_.path(),
                         "--at-a-time",
                         "2",
                         "--device",
                         device_,
                         "--checkpoint-steps",
                         "1"};
    options.environment = {{"OMP_NUM_THREADS", "1"}};
    options.error_file = out_ / "stderr.txt";
    return options;
  }
  /// Waits for the checkpoint of every run whose parents are done and which is not done itself.
  void wait_for_checkpoints(std::size_t count) const {
    const auto has = [&](const RunSpec& spec) {
      std::error_code ignored;
      const auto folder = RunPaths(out_.path(), spec.id()).checkpoints();
      return std::filesystem::directory_iterator(folder, ignored) !=
             std::filesystem::directory_iterator();
    };
    const auto end = std::chrono::steady_clock::now() + 60s;
    while (std::count_if(specs().begin(), specs().end(), has) <
           static_cast<std::ptrdiff_t>(count)) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << read_file(out_ / "stderr.txt");
      std::this_thread::sleep_for(2ms);
    }
  }
  void expect_undisturbed_bits() const {
    for (std::size_t i = 0; i < specs().size(); ++i) {
      const int attempts = attempts_at(specs()[i], out_.path());
      expect_same_bits(read_run(specs()[i], environment_in(out_.path()), attempts),
                       families_->expected[i]);
    }
  }
  OutcomeState last_state(const RunSpec& spec) const {
    const int attempt = attempts_at(spec, out_.path());
    return spooled_outcome(RunPaths(out_.path(), spec.id()).spool(attempt, 0)).state;
  }

  TempFolder out_;

 private:
  std::string device_;
  const Families* families_;
};

TEST_F(RunAll, AStopSignalEndsAllRunsWithCheckpointsAndTheSameCommandContinues) {
  ChildProcess job(command());
  wait_for_checkpoints(2);
  job.signal_group(SIGTERM);
  EXPECT_EQ(job.wait().code, static_cast<int>(ExitCode::Interrupted));
  for (const std::size_t parent : {0, 2}) {
    EXPECT_EQ(attempts_at(specs()[parent], out_.path()), 1);
    EXPECT_EQ(last_state(specs()[parent]), OutcomeState::Interrupted);
    EXPECT_EQ(attempts_at(specs()[parent + 1], out_.path()), 0) << "its parent is not done";
  }
  EXPECT_EQ(ChildProcess(command()).wait().code, 0) << read_file(out_ / "stderr.txt");
  EXPECT_EQ(attempts_at(specs()[0], out_.path()), 2);
  expect_undisturbed_bits();
}

TEST_F(RunAll, AKilledProcessLeavesRunsThatGoOnToTheSameBits) {
  for (int blow = 0; blow < 3; ++blow) {
    ChildProcess job(command());
    wait_for_checkpoints(2);
    std::this_thread::sleep_for(30ms);
    job.signal_group(SIGKILL);
    EXPECT_EQ(job.wait().signal, SIGKILL);
  }
  EXPECT_EQ(ChildProcess(command()).wait().code, 0) << read_file(out_ / "stderr.txt");
  EXPECT_GE(attempts_at(specs()[0], out_.path()), 2);
  expect_undisturbed_bits();
}

TEST_F(RunAll, ProcessesShareAFolderWithoutDoingARunTwice) {
  ChildProcess one(command()), two(command());
  EXPECT_EQ(one.wait().code, 0);
  EXPECT_EQ(two.wait().code, 0);
  for (const RunSpec& spec : specs()) EXPECT_EQ(attempts_at(spec, out_.path()), 1);
  expect_undisturbed_bits();
  EXPECT_EQ(ChildProcess(command()).wait().code, 0);
  for (const RunSpec& spec : specs()) EXPECT_EQ(attempts_at(spec, out_.path()), 1);
}

/// The same on a CUDA device, with fused operations and captured steps.
class RunAllGpu : public RunAll {
 protected:
  // Without a device the fixture is made all the same, before the test is skipped.
  RunAllGpu() : RunAll(has_gpu() ? "cuda" : "cpu", has_gpu() ? fused() : Overrides{}) {}
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no GPU";
  }

 private:
  static Overrides fused() {
    return {"dataset.image_size=32", "model.image_size=32", "model.embed_dim=64", "precision=bf16"};
  }
};

TEST_F(RunAllGpu, AStopSignalEndsAllRunsWithCheckpointsAndTheSameCommandContinues) {
  ChildProcess job(command());
  wait_for_checkpoints(2);
  job.signal_group(SIGTERM);
  EXPECT_EQ(job.wait().code, static_cast<int>(ExitCode::Interrupted));
  EXPECT_EQ(ChildProcess(command()).wait().code, 0) << read_file(out_ / "stderr.txt");
  expect_undisturbed_bits();
}

TEST_F(RunAllGpu, AKilledProcessLeavesRunsThatGoOnToTheSameBits) {
  for (int blow = 0; blow < 2; ++blow) {
    ChildProcess job(command());
    wait_for_checkpoints(2);
    std::this_thread::sleep_for(100ms);
    job.signal_group(SIGKILL);
    EXPECT_EQ(job.wait().signal, SIGKILL);
  }
  EXPECT_EQ(ChildProcess(command()).wait().code, 0) << read_file(out_ / "stderr.txt");
  expect_undisturbed_bits();
}

TEST(RunLine, SaysWhatIsWrongWithIt) {
  const TempFolder folder;
  const std::string a = folder / "a.json", b = folder / "b.json";
  write_file_atomic(a, packed_spec(1, {"epochs=0"}).canonical());
  write_file_atomic(b, packed_spec(2, {"epochs=0"}).canonical());
  const auto expect_refused = [&](std::vector<std::string> arguments, const std::string& message) {
    arguments.insert(arguments.begin(), "run");
    arguments.insert(arguments.end(), {"--out", folder / "out"});
    const CapturedRun run = run_ablate_train(arguments);
    EXPECT_EQ(run.status.code, static_cast<int>(ExitCode::BadSpec));
    EXPECT_NE(run.errors.find(message), std::string::npos) << run.errors;
  };
  expect_refused({}, "which run?");
  expect_refused({"--all"}, "there is no run below");
  expect_refused({"--all", a}, "--all takes no specs");
  expect_refused({a, folder / "missing.json"}, "missing.json: neither a file nor KEY=VALUE");
  expect_refused({a, "seed=3"}, "takes no overrides");
  expect_refused({a, b, "--attempt", "1"}, "--attempt is given 1 times for 2 specs");
  expect_refused({a, a}, "is named twice");
  EXPECT_FALSE(std::filesystem::exists(folder / "out")) << "nothing was started";
}

TEST(RunLine, SeveralRunsWantOneRank) {
  const TempFolder folder;
  const std::string a = folder / "a.json", b = folder / "b.json";
  write_file_atomic(a, packed_spec(1, {"epochs=0"}).canonical());
  write_file_atomic(b, packed_spec(2, {"epochs=0"}).canonical());
  const CapturedRun run = run_ablate_train({"run", a, b, "--out", folder / "out"}, 2);
  EXPECT_NE(run.status.code, 0);
  EXPECT_NE(run.errors.find("only on one rank each, not on 2"), std::string::npos) << run.errors;
}

TEST(RunLine, AttemptsAndFencesBelongToTheSpecsInTheirOrder) {
  const TempFolder folder;
  const RunSpec first = packed_spec(1, {"epochs=0"}), second = packed_spec(2, {"epochs=0"});
  const std::string a = folder / "a.json", b = folder / "b.json", out = folder / "out";
  write_file_atomic(a, first.canonical());
  write_file_atomic(b, second.canonical());
  const CapturedRun run =
      run_ablate_train({"run", a, b, "--out", out, "--attempt", "7", "--attempt", "3", "--fence",
                        "9", "--fence", "4", "--device", "cpu"});
  EXPECT_EQ(run.status.code, 0) << run.errors;
  const auto expect_attempt = [&](const RunSpec& spec, int attempt, int fence) {
    const auto spool = RunPaths(out, spec.id()).spool(attempt, 0);
    EXPECT_EQ(spooled_outcome(spool).state, OutcomeState::Done);
    for (const Facts& facts : records_of<Facts>(spool)) {
      if (facts.kind != FactKind::Environment) continue;
      EXPECT_EQ(nlohmann::json::parse(facts.json).at("fence"), fence);
    }
  };
  expect_attempt(first, 7, 9);
  expect_attempt(second, 3, 4);
}

}  // namespace
}  // namespace ablate::test
