#include <chrono>
#include <cstdlib>
#include <thread>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/torch/torch.h"
#include "runner/worker/torch_switches.h"
#include "tests/support/gpu.h"
#include "tests/worker/packed_runs.h"

#if ABLATE_HAS_CUDA

// Several runs as threads of one process on one CUDA device.

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

/// With images and heads that fused operations take.
Overrides device_settings(const Overrides& more) {
  Overrides settings = {"dataset.image_size=32", "model.image_size=32", "model.embed_dim=64"};
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

const Overrides kHalfPrecision = device_settings({"precision=bf16"});

PackedRun device_run(const RunSpec& spec, const fs::path& out) {
  PackedRun run = packed_run(spec, out);
  run.environment.device = "cuda";
  return run;
}

int run_together(const std::vector<RunSpec>& specs, const fs::path& out) {
  std::vector<PackedRun> runs;
  for (const RunSpec& spec : specs) runs.push_back(device_run(spec, out));
  return run_pack(std::move(runs), {});
}

RunRecord run_alone(const RunSpec& spec, const fs::path& out) {
  const PackedRun run = device_run(spec, out);
  const Outcome outcome = run_attempt(spec, run.environment);
  EXPECT_EQ(outcome.state, OutcomeState::Done) << outcome.detail;
  return read_run(spec, run.environment);
}

std::vector<RunSpec> device_specs(const Overrides& settings) {
  const auto with = [&](const char* override) {
    Overrides more = settings;
    more.emplace_back(override);
    return more;
  };
  return {packed_spec(1, settings), packed_spec(2, settings), packed_spec(2, with("clip_norm=0.5")),
          packed_spec(3, with("model.depth=3")),
          packed_spec(4, with(R"(optimizer={name="sgd",lr=0.05,nesterov=true})"))};
}

class RunPackGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
    set_torch_switches(1);
  }

  static void expect_bits_of_runs_alone(const std::vector<RunSpec>& specs) {
    const TempFolder together, alone;
    ASSERT_EQ(run_together(specs, together.path()), 0);
    keep_gemm_choices(together.path(), alone.path());
    for (const RunSpec& spec : specs) {
      expect_same_bits(read_run(spec, environment_in(together.path())),
                       run_alone(spec, alone.path()));
    }
  }
};

TEST_F(RunPackGpu, EveryFusedRunHasTheBitsItHasAlone) {
  expect_bits_of_runs_alone(device_specs(kHalfPrecision));
}

TEST_F(RunPackGpu, EveryPlainRunHasTheBitsItHasAlone) {
  expect_bits_of_runs_alone(device_specs(device_settings({})));
}

TEST_F(RunPackGpu, EagerAndCapturedStepsOfBothPrecisionsGoTogether) {
  std::vector<RunSpec> specs = device_specs(kHalfPrecision);
  const std::vector<RunSpec> plain = device_specs(device_settings({}));
  specs.insert(specs.end(), plain.begin(), plain.begin() + 3);
  expect_bits_of_runs_alone(specs);
}

TEST_F(RunPackGpu, AStructuralEditOfOneRunLeavesTheOthersAlone) {
  const std::string dilution =
      R"(methods=[{name="nose",remove=1,samples=32,dilution_epochs=1.5,dilution_per="step"}])";
  Overrides edited = kHalfPrecision;
  edited.push_back(dilution);
  expect_bits_of_runs_alone(
      {packed_spec(1, edited), packed_spec(2, kHalfPrecision), packed_spec(3, edited)});
}

TEST_F(RunPackGpu, ARunThatDivergesEndsAlone) {
  Overrides diverging = kHalfPrecision;
  diverging.emplace_back(R"(optimizer={name="sgd",lr=1000.0,weight_decay=1.0})");
  const TempFolder together, alone;
  const RunSpec good = packed_spec(1, kHalfPrecision), bad = packed_spec(2, diverging);
  EXPECT_EQ(run_together({bad, good}, together.path()), static_cast<int>(ExitCode::Diverged));
  keep_gemm_choices(together.path(), alone.path());
  expect_same_bits(read_run(good, environment_in(together.path())), run_alone(good, alone.path()));
}

/// Where a process that loses its device works, for it and for the one that looks afterwards.
constexpr const char* kLostFolder = "ABLATE_TEST_LOST_DEVICE";

/// Two runs, and a fault of the device once both have checkpoints. Returns the exit status.
int lose_the_device(const std::vector<RunSpec>& specs, const fs::path& out) {
  const auto has_checkpoint = [&](const RunSpec& spec) {
    std::error_code ignored;
    return fs::directory_iterator(RunPaths(out, spec.id()).checkpoints(), ignored) !=
           fs::directory_iterator();
  };
  const std::jthread fault([&] {
    while (!has_checkpoint(specs[0]) || !has_checkpoint(specs[1])) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    at::_assert_async(at::zeros({1}, at::device(at::kCUDA)));
  });
  return run_together(specs, out);
}

TEST_F(RunPackGpu, ALostDeviceSendsAllRunsBackToTheirCheckpoints) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // in a process of its own
  TempFolder folder;
  ::setenv(kLostFolder, folder.path().c_str(), /*overwrite=*/0);
  const fs::path out = std::getenv(kLostFolder);
  Overrides settings = kHalfPrecision;
  settings.emplace_back("epochs=50");
  const std::vector<RunSpec> specs = {packed_spec(1, settings), packed_spec(2, settings)};
  const auto transient = static_cast<int>(ExitCode::Transient);
  EXPECT_EXIT(std::_Exit(lose_the_device(specs, out)), testing::ExitedWithCode(transient), "");
  ::unsetenv(kLostFolder);
  std::vector<PackedRun> runs;
  for (const RunSpec& spec : specs) {
    const Outcome outcome = spooled_outcome(RunPaths(out, spec.id()).spool(1, 0));
    EXPECT_EQ(outcome.state, OutcomeState::Transient) << outcome.detail;
    EXPECT_EQ(outcome.cause, "node") << outcome.detail;
    runs.push_back(device_run(spec, out));
    runs.back().environment.attempt = 2;
  }
  EXPECT_EQ(run_pack(std::move(runs), {}), 0);
  const TempFolder alone;
  keep_gemm_choices(out, alone.path());
  for (const RunSpec& spec : specs) {
    expect_same_bits(read_run(spec, environment_in(out), 2), run_alone(spec, alone.path()));
  }
}

TEST_F(RunPackGpu, TellsHowMuchOfTheDeviceTheProcessTook) {
  const TempFolder out;
  const RunSpec spec = packed_spec(1, kHalfPrecision);
  EXPECT_EQ(run_together({spec}, out.path()), 0);
  double mebibytes = 0;
  std::map<std::uint32_t, std::string> names;
  SpoolReader reader(RunPaths(out.path(), spec.id()).spool(1, 0));
  while (const auto frame = reader.next()) {
    if (const auto* def = std::get_if<MetricDef>(&frame->record)) names[def->id] = def->name;
    const auto* points = std::get_if<Points>(&frame->record);
    for (const Point& point : points ? points->points : std::vector<Point>{}) {
      if (names.at(point.metric) == "memory/device_mib") mebibytes = point.value;
    }
  }
  EXPECT_GT(mebibytes, 1.0);
}

}  // namespace
}  // namespace ablate::test

#endif
