#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/probe.h"
#include "tests/train/run_tables.h"

// A loss or gradient that is not finite ends the run as diverged, or costs one update.

namespace ablate::test {
namespace {

enum class Defect {
  Loss,      ///< the loss is NaN
  Infinity,  ///< the loss is infinite
  Gradient,  ///< the loss is as it was, its gradient is NaN
};

/// Breaks the loss of one step on one rank.
ProbeHooks broken_at(std::int64_t step, int rank, Defect defect) {
  ProbeHooks hooks;
  hooks.in_step = [=](TrainContext& context, const at::Tensor& loss) {
    if (context.step() != step || context.communicator().rank() != rank) return loss;
    if (defect == Defect::Loss) return loss * std::numeric_limits<double>::quiet_NaN();
    if (defect == Defect::Infinity) return loss * std::numeric_limits<double>::infinity();
    return loss + (loss - loss).sqrt();
  };
  return hooks;
}

constexpr std::int64_t kBadStep = 3;

RunSpec spec_with(std::string_view toml, const std::string& policy, int ranks) {
  return resolve_table(toml, {"on_nan=" + policy, "ema_decay=0.9", "bn_group=16", kWithProbe},
                       ranks);
}

TEST(NanPolicy, StopEndsTheRunAsDivergedOnAllRanks) {
  for (const Defect defect : {Defect::Loss, Defect::Infinity, Defect::Gradient}) {
    for (const int ranks : {1, 2}) {
      const TempFolder out;
      const RunSpec spec = spec_with(kTinyVit, "stop", ranks);
      const Probe probe(broken_at(kBadStep, ranks - 1, defect));
      const std::string message =
          message_of<DivergedError>([&] { run_attempt(spec, environment_in(out.path()), ranks); });
      EXPECT_NE(message.find("at step 3"), std::string::npos) << message;
      EXPECT_NE(message.find("on_nan = \"skip\""), std::string::npos) << message;
      const RunPaths paths(out.path(), spec.id());
      for (int rank = 0; rank < ranks; ++rank) {
        const Outcome outcome = spooled_outcome(paths.spool(1, rank));
        EXPECT_EQ(outcome.state, OutcomeState::Diverged) << rank;
        EXPECT_EQ(outcome.cause, "nan");
        EXPECT_EQ(outcome.exit_code, static_cast<int>(ExitCode::Diverged));
        EXPECT_EQ(outcome.detail, message);
      }
      EXPECT_FALSE(std::filesystem::exists(paths.final_directory()));
    }
  }
}

TEST(NanPolicy, StopIsTheDefault) {
  EXPECT_EQ(options_of(resolve_table(kTinyVit)).on_nan, NanPolicy::Stop);
}

/// Tensors of the checkpoint after `step` steps.
std::map<std::string, at::Tensor> state_after(const RunPaths& paths, std::int64_t step) {
  return read_tensors(paths.checkpoints() / cat("step-00000000", step) / "tensors.safetensors");
}

struct SkippedCase {
  const char* name;
  std::string_view model;
  Defect defect;
  int ranks;
};

class SkippedUpdate : public testing::TestWithParam<SkippedCase> {};

// Weights, moments, averages and running statistics after the bad step are those before it.
TEST_P(SkippedUpdate, LeavesEveryBitOfTheStateAsItWas) {
  const auto& [name, model, defect, ranks] = GetParam();
  const TempFolder out;
  const RunSpec spec = spec_with(model, "skip", ranks);
  const RunPaths paths(out.path(), spec.id());
  Environment environment = environment_in(out.path());
  environment.keep_checkpoints = 10;
  const Probe probe(broken_at(kBadStep, ranks - 1, defect));
  for (environment.attempt = 1; environment.attempt <= 5; ++environment.attempt) {
    run_attempt(spec, environment, ranks, true);
  }
  const auto before = state_after(paths, kBadStep), after = state_after(paths, kBadStep + 1);
  expect_same_tensors(before, after);
  const auto later = state_after(paths, kBadStep + 2);
  EXPECT_GT(weight_distance(after, later), 1e-4) << "the run goes on";
  EXPECT_GT(weight_distance(state_after(paths, kBadStep - 1), before), 1e-4);
  const auto events = events_of(paths.spool(4, 0), "nan_skipped");
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].at("at_step"), kBadStep);
  EXPECT_TRUE(events_of(paths.spool(5, 0), "nan_skipped").empty());
}

INSTANTIATE_TEST_SUITE_P(
    Cases, SkippedUpdate,
    testing::Values(SkippedCase{"LossOfATransformer", kTinyVit, Defect::Loss, 1},
                    SkippedCase{"GradientOnOneOfTwoRanks", kTinyVit, Defect::Gradient, 2},
                    SkippedCase{"LossOfANetworkWithBatchNorm", kTinyResNet, Defect::Loss, 1},
                    SkippedCase{"GradientWithBatchNormOverRanks", kTinyResNet, Defect::Gradient,
                                4}),
    [](const auto& of) { return of.param.name; });

TEST(NanPolicy, SkipGoesOnToTheEndAlsoThroughAStop) {
  const RunSpec spec = spec_with(kTinyResNet, "skip", 2);
  const Probe probe(broken_at(kBadStep, 1, Defect::Gradient));
  const TempFolder whole, pieces;
  const Outcome outcome = run_attempt(spec, environment_in(whole.path()), 2);
  EXPECT_EQ(outcome.state, OutcomeState::Done);
  EXPECT_EQ(outcome.last_step, 8);
  const RunRecord record = read_run(spec, environment_in(whole.path()));
  EXPECT_TRUE(std::isnan(record.series.at("train/grad_norm").at(kBadStep)));
  EXPECT_TRUE(std::isfinite(record.finals.at("loss")));
  Environment environment = environment_in(pieces.path());
  for (environment.attempt = 1;; ++environment.attempt) {
    if (run_attempt(spec, environment, 2, true).state == OutcomeState::Done) break;
  }
  expect_same_tensors(record.weights, read_run(spec, environment, environment.attempt).weights);
}

}  // namespace
}  // namespace ablate::test
