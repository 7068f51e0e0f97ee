#include <optional>
#include <utility>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/measure/mac_counter.h"
#include "runner/train/finals.h"
#include "tests/conformance/method_examples.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"

// Every two registered methods work together, or say that they do not.

namespace ablate {
namespace {

using test::RunRecord;
using test::TempFolder;
using NamePair = std::pair<std::string, std::string>;

bool offers_all(const ModelInfo& model, const MethodInfo& method) {
  return std::ranges::all_of(method.needs, [&](Slot slot) {
    return std::ranges::find(model.offers, slot) != model.offers.end();
  });
}

/// The example of either on whose model both have a place.
std::optional<MethodExample> common_ground(const NamePair& pair) {
  const auto& first = Registry<MethodInfo>::get(pair.first);
  const auto& second = Registry<MethodInfo>::get(pair.second);
  for (const MethodInfo* method : {&first, &second}) {
    const MethodExample example = method->example();
    const auto& model = Registry<ModelInfo>::get(example.model);
    if (offers_all(model, first) && offers_all(model, second)) return example;
  }
  return std::nullopt;
}

std::vector<Component> components_of(const NamePair& pair) {
  std::vector<Component> methods{test::method_component(test::example_of(pair.first).params),
                                 test::method_component(test::example_of(pair.second).params)};
  sort_methods(methods);
  return methods;
}

/// Why a model does not take both; empty when it does.
std::string refusal(const std::string& model, const NamePair& pair) {
  try {
    check_methods(Registry<ModelInfo>::get(model), components_of(pair), "pair");
    return "";
  } catch (const SpecError& error) {
    return error.what();
  }
}

class MethodPairs : public testing::TestWithParam<NamePair> {
 protected:
  const MethodInfo& first() const { return Registry<MethodInfo>::get(GetParam().first); }
  const MethodInfo& second() const { return Registry<MethodInfo>::get(GetParam().second); }

  MethodExample example_ = *common_ground(GetParam());
  std::vector<Component> components() const { return components_of(GetParam()); }
};

TEST_P(MethodPairs, ApplyReplayAndCostWhatAFormulaSays) {
  const auto model = test::example_model(example_);
  const auto context = test::example_context(*model);
  MethodStack stack(components());
  stack.apply(*context);
  stack.finalize(context->surgeon());
  EXPECT_TRUE(stack.settled());
  const std::vector<Edit>& edits = context->surgeon().edits();
  const auto replayed = test::replayed_model(example_, edits, test::weights_of(*model));
  model->eval();
  replayed->eval();
  const at::Tensor images = test::wavy_images(5, model->image_size());
  EXPECT_TRUE(at::equal(test::logits_of(*model, images), test::logits_of(*replayed, images)));
  if (test::is_transformer(example_.model)) {
    EXPECT_EQ(measure_cost(*model).macs, test::transformer_macs(*model, edits));
  }
}

// Trained together, and once more with a stop after every step.
TEST_P(MethodPairs, TrainAndComeBackFromCheckpointsAndFinals) {
  const TempFolder whole, broken;
  const RunSpec spec = test::resolve_small(
      test::example_run(example_, {first().example(), second().example()}, 2, "fp32"));
  EXPECT_EQ(spec.methods, components());
  const RunRecord undisturbed = test::run_small(spec, whole.path());
  EXPECT_EQ(undisturbed.series.at("train/loss").size(), 8U);

  Environment environment = test::environment_in(broken.path());
  Outcome outcome;
  for (environment.attempt = 1; environment.attempt <= 9; ++environment.attempt) {
    outcome = test::run_attempt(spec, environment, 1, true);
    if (outcome.state == OutcomeState::Done) break;
  }
  ASSERT_EQ(outcome.state, OutcomeState::Done);
  const RunRecord continued = test::read_run(spec, environment, environment.attempt);
  EXPECT_EQ(continued.structure, undisturbed.structure);
  EXPECT_EQ(continued.series, undisturbed.series);
  EXPECT_EQ(continued.finals, undisturbed.finals);
  for (const auto& [name, tensor] : undisturbed.weights) {
    EXPECT_TRUE(at::equal(tensor, continued.weights.at(name))) << name;
  }

  const Finals finals = read_finals(RunPaths(whole.path(), spec.id()).final_directory());
  const auto model = load_final_model(finals, false);
  EXPECT_TRUE(test::logits_of(*model, test::wavy_images(3, model->image_size()))
                  .isfinite()
                  .all()
                  .item<bool>());
  const auto macs = static_cast<double>(measure_cost(*model).macs);
  EXPECT_EQ(undisturbed.finals.at("macs"), macs);
}

/// Whether some registered model takes both methods.
bool some_model_takes(const NamePair& pair) {
  return std::ranges::any_of(Registry<ModelInfo>::names(), [&](const std::string& model) {
    return refusal(model, pair).empty();
  });
}

std::vector<NamePair> all_pairs() {
  std::vector<NamePair> pairs;
  const std::vector<std::string> names = Registry<MethodInfo>::names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) pairs.emplace_back(names[j], names[i]);
  }
  return pairs;
}

// What `ablate list --pairs` prints is what runs are checked by.
TEST(MethodPairList, TellsWhatRunsAreCheckedBy) {
  for (const NamePair& pair : all_pairs()) {
    const auto& a = Registry<MethodInfo>::get(pair.first);
    const auto& b = Registry<MethodInfo>::get(pair.second);
    EXPECT_EQ(pair_conflict(a, b).empty(), some_model_takes(pair))
        << pair.first << ", " << pair.second << ": " << pair_conflict(a, b);
    EXPECT_EQ(pair_conflict(a, b), pair_conflict(b, a));
  }
}

// Declarations are the only reason why a model with places for both refuses them.
TEST(MethodPairList, RefusalsNameBoth) {
  for (const NamePair& pair : all_pairs()) {
    const auto ground = common_ground(pair);
    if (!ground) continue;
    const std::string message = refusal(ground->model, pair);
    if (message.empty()) continue;
    EXPECT_NE(message.find(pair.first), std::string::npos) << message;
    EXPECT_NE(message.find(pair.second), std::string::npos) << message;
  }
}

std::vector<NamePair> working_pairs() {
  std::vector<NamePair> pairs = all_pairs();
  std::erase_if(pairs, [](const NamePair& pair) {
    const auto ground = common_ground(pair);
    return !ground || !refusal(ground->model, pair).empty();
  });
  return pairs;
}

INSTANTIATE_TEST_SUITE_P(All, MethodPairs, testing::ValuesIn(working_pairs()),
                         [](const auto& pair) {
                           return cat(pair.param.first, "_and_", pair.param.second);
                         });

}  // namespace
}  // namespace ablate
