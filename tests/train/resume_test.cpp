#include <gtest/gtest.h>

#include "runner/train/run_data.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// Runs that are stopped and continued, at every step, end as if nothing had happened.

namespace ablate::test {
namespace {

/// How the attempts at a run are made, from the first on; the last entry also serves later ones.
struct AttemptPlan {
  int ranks = 1;
  std::int64_t micro_batch = 0;
};

struct Resumed {
  RunRecord record;
  std::map<std::string, at::Tensor> average;  // empty without EMA
  int attempts = 0;
  std::vector<nlohmann::json> environments;  // recorded by each attempt
};

std::map<std::string, at::Tensor> average_of(const RunPaths& paths) {
  const auto file = paths.final_directory() / "ema.safetensors";
  return std::filesystem::exists(file) ? read_tensors(file) : std::map<std::string, at::Tensor>{};
}

/// Attempts that are stopped after each step, until the run is done.
Resumed run_in_pieces(const RunSpec& spec, const std::vector<AttemptPlan>& plans) {
  const TempFolder out;
  const RunPaths paths(out.path(), spec.id());
  Environment environment = environment_in(out.path());
  Resumed result;
  for (environment.attempt = 1;; ++environment.attempt) {
    const auto index =
        std::min<std::size_t>(static_cast<std::size_t>(environment.attempt), plans.size());
    const AttemptPlan& plan = plans[index - 1];
    environment.micro_batch = plan.micro_batch;
    const Outcome outcome = run_attempt(spec, environment, plan.ranks, true);
    for (const Facts& facts : records_of<Facts>(paths.spool(environment.attempt, 0))) {
      if (facts.kind == FactKind::Environment) {
        result.environments.push_back(nlohmann::json::parse(facts.json));
      }
    }
    if (outcome.state == OutcomeState::Done) break;
    EXPECT_EQ(outcome.state, OutcomeState::Interrupted) << outcome.detail;
    EXPECT_EQ(outcome.last_step, environment.attempt) << "one step an attempt";
  }
  result.attempts = environment.attempt;
  result.record = read_run(spec, environment, environment.attempt);
  result.average = average_of(paths);
  return result;
}

Resumed run_at_once(const RunSpec& spec, const AttemptPlan& plan) {
  const TempFolder out;
  Resumed result;
  result.record = run_small(spec, out.path(), plan.ranks, plan.micro_batch);
  result.average = average_of(RunPaths(out.path(), spec.id()));
  return result;
}

struct Exactness {
  const char* name;
  std::string_view model;
  std::vector<std::string> overrides;
  AttemptPlan plan;
};

class StoppedAtEveryStep : public testing::TestWithParam<Exactness> {};

TEST_P(StoppedAtEveryStep, EndsWithTheSameBits) {
  const auto& [name, model, overrides, plan] = GetParam();
  const RunSpec spec = resolve_table(
      model, joined(joined(all_randomness(), overrides), {"evaluate_every=1"}), plan.ranks);
  const Resumed whole = run_at_once(spec, plan);
  const Resumed pieces = run_in_pieces(spec, {plan});
  const auto steps = static_cast<int>(whole.record.series.at("train/loss").size());
  EXPECT_GT(steps, 4) << "more than one epoch";
  EXPECT_EQ(pieces.attempts, steps);
  expect_same_bits(whole.record, pieces.record);
  expect_same_tensors(whole.average, pieces.average);
}

// NOSE removes its layer before the sixth of twelve steps.
const std::string kDilution =
    R"(methods=[{name="nose",remove=1,samples=32,dilution_epochs=1.25,dilution_per="step"}])";

// ELA decides at the start of the second to fourth epoch, from the one before.
const std::string kSearch =
    R"(methods=[{name="ela",q=0.5,patience=1,warmup_epochs=1,freeze_epoch=3}])";

INSTANTIATE_TEST_SUITE_P(
    Recipes, StoppedAtEveryStep,
    testing::Values(
        Exactness{"AdamwAverageAccumulation",
                  kTinyVit,
                  {"ema_decay=0.9", "clip_norm=0.5", "model.drop_path=0.2"},
                  {1, 8}},
        Exactness{"DilutionAndRemoval",
                  kTinyVit,
                  {"epochs=3", "ema_decay=0.9", "clip_norm=0.5", kDilution},
                  {2, 8}},
        Exactness{"SgdMomentumBatchNorm",
                  kTinyResNet,
                  {"ema_decay=0.9", "optimizer.nesterov=true", "bn_group=32"},
                  {2, 0}},
        Exactness{"SgdWithDilution",
                  kTinyVit,
                  {"epochs=3", R"(optimizer={name="sgd",lr=0.05,nesterov=true})", kDilution},
                  {1, 16}},
        Exactness{"SearchForRetrievals",
                  kTinyResNet,
                  {"epochs=5", "ema_decay=0.9", "bn_group=16", kSearch},
                  {2, 0}},
        Exactness{"AdamwBatchNormAccumulation",
                  kTinyResNet,
                  {R"(optimizer={name="adamw",lr=1e-2})", "ema_decay=0.5", "bn_group=4"},
                  {1, 8}}),
    [](const auto& of) { return of.param.name; });

TEST(ResumedDilution, RemovesItsLayerInMidRun) {
  const RunSpec spec = resolve_table(kTinyVit, {"epochs=3", kDilution});
  const TempFolder out;
  const RunRecord record = run_small(spec, out.path());
  const auto& lambda = record.series.at("nose/lambda");
  EXPECT_EQ(lambda.begin()->second, 0.8) << "at step 1";
  EXPECT_EQ(lambda.rbegin()->first, 5);
  EXPECT_EQ(lambda.rbegin()->second, 0.0);
}

/// Rank counts and passes that change from attempt to attempt are allowed, on record, and change
/// nothing beyond rounding.
void expect_same_run(std::string_view model, const std::vector<std::string>& overrides,
                     const std::vector<AttemptPlan>& plans) {
  const RunSpec spec =
      resolve_table(model, joined(joined(all_randomness(), overrides), {"precision=fp64"}), 4);
  const Resumed whole = run_at_once(spec, plans.front());
  const Resumed pieces = run_in_pieces(spec, plans);
  EXPECT_LE(weight_distance(whole.record.weights, pieces.record.weights), 1e-9);
  EXPECT_LE(weight_distance(whole.average, pieces.average), 1e-9);
  EXPECT_EQ(whole.record.structure, pieces.record.structure);
  for (const auto& [step, loss] : whole.record.series.at("train/loss")) {
    EXPECT_NEAR(pieces.record.series.at("train/loss").at(step), loss, 1e-9) << step;
  }
  ASSERT_EQ(pieces.environments.size(), static_cast<std::size_t>(pieces.attempts));
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const std::int64_t slice = 32 / plans[i].ranks;
    const std::int64_t pass = plans[i].micro_batch == 0 ? slice : plans[i].micro_batch;
    EXPECT_EQ(pieces.environments[i].at("world_size"), plans[i].ranks) << i;
    EXPECT_EQ(pieces.environments[i].at("micro_batch"), pass) << i;
    EXPECT_EQ(pieces.environments[i].at("grad_accum"), slice / pass) << i;
  }
}

TEST(ResumedOnOtherRanks, ATransformerUnderDilutionGoesOn) {
  expect_same_run(kTinyVit,
                  {"epochs=3", "ema_decay=0.9", "clip_norm=0.5", "model.drop_path=0.2", kDilution},
                  {{1}, {2}, {4}, {1, 8}, {2, 4}, {4, 4}, {1}});
}

TEST(ResumedOnOtherRanks, ASearchForRetrievalsGoesOn) {
  expect_same_run(kTinyResNet,
                  {"epochs=5", "bn_group=8", "optimizer.lr=0.002", "ema_decay=0.9", kSearch},
                  {{1}, {2}, {4}, {2, 8}, {1}});
}

TEST(ResumedOnOtherRanks, ANetworkWithBatchNormGoesOn) {
  expect_same_run(kTinyResNet, {"ema_decay=0.9", "bn_group=16"}, {{1}, {4}, {2}, {1, 16}, {4}});
}

}  // namespace
}  // namespace ablate::test
