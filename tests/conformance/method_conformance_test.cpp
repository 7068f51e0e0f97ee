#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/measure/mac_counter.h"
#include "tests/conformance/method_examples.h"
#include "tests/support/run_records.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"

// What every registered method must do, shown on the example that its file gives.

namespace ablate {
namespace {

using test::RunRecord;
using test::TempFolder;

class MethodConformance : public testing::TestWithParam<std::string> {
 protected:
  const MethodInfo& info() const { return Registry<MethodInfo>::get(GetParam()); }
  MethodExample example() const { return info().example(); }
  Component component() const { return test::method_component(example().params); }
  std::shared_ptr<Model> base_model() const { return test::example_model(example()); }
  std::string run_table(int epochs, const std::string& precision = "fp64") const {
    return test::example_run(example(), {example()}, epochs, precision);
  }
};

at::Tensor logits_of(Model& model) {
  const at::NoGradGuard no_grad;
  model.eval();
  ForwardState state;
  return model.forward(test::wavy_images(5, model.image_size()), state);
}

TEST_P(MethodConformance, DescribesItself) {
  EXPECT_EQ(info().name, GetParam());
  EXPECT_FALSE(info().summary.empty());
  EXPECT_FALSE(info().paper.empty());
  EXPECT_GE(info().semantics, 1);
  EXPECT_EQ(info().conflicts.empty(), info().conflict_reason.empty());
  EXPECT_EQ(component().name, GetParam());
  EXPECT_NO_THROW(
      check_methods(Registry<ModelInfo>::get(example().model), {component()}, "example"));
}

TEST_P(MethodConformance, ResolvedSettingsResolveToThemselves) {
  const Component once = component();
  Params again(once.params, "again");
  info().make(again);
  again.finish();
  EXPECT_EQ(again.resolved(), once.params);
}

TEST_P(MethodConformance, RecordsWhatItDoesSoThatReplayGivesTheSameModel) {
  const auto model = base_model();
  const auto context = test::example_context(*model);
  MethodStack stack({component()});
  stack.apply(*context);
  EXPECT_FALSE(context->surgeon().edits().empty());
  stack.finalize(context->surgeon());
  const auto replayed =
      test::replayed_model(example(), context->surgeon().edits(), test::weights_of(*model));
  EXPECT_TRUE(at::equal(logits_of(*model), logits_of(*replayed)));
}

// A row of a table must not claim what did not happen.
TEST_P(MethodConformance, RefusesSettingsThatChangeNothing) {
  ASSERT_FALSE(example().idle_params.empty());
  const auto model = base_model();
  const auto context = test::example_context(*model);
  EXPECT_THROW(MethodStack({test::method_component(example().idle_params)}).apply(*context), Error);
}

/// Output and gradients, by name, of one training pass over five of eight images.
std::map<std::string, at::Tensor> training_pass(Model& model) {
  model.train();
  ForwardState state;
  state.seed = 5;
  state.step = 7;
  state.first_position = 3;
  state.global_batch = 8;
  const at::Tensor output = model.forward(test::wavy_images(5, model.image_size()), state);
  output.square().sum().backward();
  std::map<std::string, at::Tensor> result{{"output", output.detach()}};
  for (const auto& item : model.named_parameters()) result[item.key()] = item.value().grad();
  return result;
}

// Where a method says that it starts neutrally, everything that a step sees is as it was.
class NeutralMethodConformance : public MethodConformance {};

TEST_P(NeutralMethodConformance, StartsAsThePlainModel) {
  const std::string drop = test::is_transformer(example().model) ? "drop_path = 0.4\n" : "";
  const auto plain = test::example_model(example(), drop);
  const auto changed = test::example_model(example(), drop);
  const auto context = test::example_context(*changed);
  MethodStack stack({component()});
  stack.apply(*context);
  EXPECT_FALSE(stack.settled());
  stack.on_epoch(*context, EpochEdge::Start);
  stack.between_steps(*context);
  EXPECT_TRUE(at::equal(logits_of(*plain), logits_of(*changed)));
  const auto after = training_pass(*changed);
  for (const auto& [name, tensor] : training_pass(*plain)) {
    EXPECT_TRUE(at::equal(tensor, after.at(name))) << name;
  }
}

TEST_P(MethodConformance, ChangesTheModelInTheEnd) {
  const auto model = base_model();
  const at::Tensor before = logits_of(*model);
  const std::int64_t cost = measure_cost(*model).macs;
  const auto context = test::example_context(*model);
  MethodStack stack({component()});
  stack.apply(*context);
  stack.finalize(context->surgeon());
  EXPECT_TRUE(stack.settled());
  EXPECT_FALSE(at::equal(before, logits_of(*model)) && cost == measure_cost(*model).macs);
}

TEST_P(MethodConformance, RefusesToBeAppliedTwice) {
  EXPECT_THROW(check_methods(Registry<ModelInfo>::get(example().model), {component(), component()},
                             "example"),
               SpecError);
  const auto model = base_model();
  const auto context = test::example_context(*model);
  MethodStack first({component()});
  first.apply(*context);
  first.finalize(context->surgeon());
  const std::vector<Edit> edits = context->surgeon().edits();
  // A search may well find other places the second time; the same edits must be refused.
  for (const Edit& edit : edits) EXPECT_THROW(context->surgeon().apply(edit), Error);
  EXPECT_EQ(context->surgeon().edits(), edits);
}

class TransformerMethodConformance : public MethodConformance {};

TEST_P(TransformerMethodConformance, CostsWhatAFormulaSays) {
  const auto model = base_model();
  const auto context = test::example_context(*model);
  MethodStack stack({component()});
  stack.apply(*context);
  stack.finalize(context->surgeon());
  EXPECT_EQ(measure_cost(*model).macs, test::transformer_macs(*model, context->surgeon().edits()));
}

TEST_P(MethodConformance, TwentyStepsLowerTheLoss) {
  const TempFolder out;
  const RunRecord record = test::run_small(test::resolve_small(run_table(5, "fp32")), out.path());
  const auto& loss = record.series.at("train/loss");
  ASSERT_EQ(loss.size(), 20U);
  const auto mean = [&](std::int64_t first) {
    double sum = 0;
    for (std::int64_t step = first; step < first + 4; ++step) sum += loss.at(step) / 4;
    return sum;
  };
  EXPECT_LT(mean(16), mean(0));
}

TEST_P(MethodConformance, TwoRanksTrainAsOneDoes) {
  const TempFolder alone, shared, cut;
  const RunSpec spec = test::resolve_small(run_table(4));
  const RunRecord one = test::run_small(spec, alone.path());
  const RunRecord two = test::run_small(spec, shared.path(), 2);
  EXPECT_EQ(one.structure, two.structure);
  EXPECT_LT(test::weight_distance(one.weights, two.weights), 1e-9);
  const RunRecord four = test::run_small(spec, cut.path(), 1, 8);
  EXPECT_EQ(one.structure, four.structure);
  EXPECT_LT(test::weight_distance(one.weights, four.weights), 1e-9) << "micro-batches";
}

// Stopped after every single step and continued from its checkpoint each time.
TEST_P(MethodConformance, InterruptedRunsEndWithTheSameBits) {
  const TempFolder whole, broken;
  const RunSpec spec = test::resolve_small(run_table(2, "fp32"));
  const RunRecord undisturbed = test::run_small(spec, whole.path());
  Environment environment = test::environment_in(broken.path());
  Outcome outcome;
  for (environment.attempt = 1; environment.attempt <= 9; ++environment.attempt) {
    outcome = test::run_attempt(spec, environment, 1, true);
    if (outcome.state == OutcomeState::Done) break;
    EXPECT_EQ(outcome.state, OutcomeState::Interrupted);
    EXPECT_EQ(outcome.last_step, environment.attempt);
  }
  ASSERT_EQ(outcome.state, OutcomeState::Done);
  EXPECT_EQ(environment.attempt, 8) << "one attempt a step";
  test::expect_same_bits(undisturbed, test::read_run(spec, environment, environment.attempt));
}

TEST_P(MethodConformance, RunsInOneProcessDoNotTouchEachOther) {
  const TempFolder alone, together;
  std::vector<RunSpec> specs;
  for (const char* seed : {"seed = 3", "seed = 4"}) {
    std::string table = run_table(2, "fp32");
    specs.push_back(test::resolve_small(table.replace(table.find("seed = 3"), 8, seed)));
  }
  std::vector<RunRecord> records;
  for (const RunSpec& spec : specs) records.push_back(test::run_small(spec, alone.path()));
  {
    std::vector<std::jthread> runs;
    for (const RunSpec& spec : specs) {
      runs.emplace_back([&] { test::run_attempt(spec, test::environment_in(together.path())); });
    }
  }
  for (std::size_t i = 0; i < specs.size(); ++i) {
    test::expect_same_bits(records[i],
                           test::read_run(specs[i], test::environment_in(together.path())));
  }
  EXPECT_GT(test::weight_distance(records[0].weights, records[1].weights), 1e-3)
      << "seeds must matter";
}

template <typename Condition>
std::vector<std::string> methods_whose_example(Condition condition) {
  std::vector<std::string> names = Registry<MethodInfo>::names();
  std::erase_if(names, [&](const std::string& name) { return !condition(test::example_of(name)); });
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, MethodConformance, testing::ValuesIn(Registry<MethodInfo>::names()),
                         [](const auto& name) { return name.param; });
INSTANTIATE_TEST_SUITE_P(All, NeutralMethodConformance,
                         testing::ValuesIn(methods_whose_example([](const MethodExample& example) {
                           return example.starts_neutral;
                         })),
                         [](const auto& name) { return name.param; });
INSTANTIATE_TEST_SUITE_P(All, TransformerMethodConformance,
                         testing::ValuesIn(methods_whose_example([](const MethodExample& example) {
                           return test::is_transformer(example.model);
                         })),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace ablate
