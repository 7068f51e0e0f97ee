#include <set>

#include <gtest/gtest.h>

#include "datasets/loader.h"
#include "methods/method_stack.h"
#include "methods/models/weights_io.h"
#include "runner/core/error.h"
#include "runner/measure/mac_counter.h"
#include "tests/support/datasets.h"
#include "tests/support/method_context.h"
#include "tests/support/models.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"

// What every registered method must do, shown on the example that its file gives.

namespace ablate {
namespace {

using test::MethodContext;
using test::RunRecord;
using test::TempFolder;

class MethodConformance : public testing::TestWithParam<std::string> {
 protected:
  const MethodInfo& info() const { return Registry<MethodInfo>::get(GetParam()); }
  MethodExample example() const { return info().example(); }
  Component component() const { return test::method_component(example().params); }

  std::shared_ptr<Model> base_model() const {
    auto model = test::make_model(example().model, example().model_params, 4);
    model->initialize(1);
    return model;
  }

  /// A context with data to decide on and a run long enough for any schedule.
  std::unique_ptr<MethodContext> context_for(Model& model) const {
    auto context = std::make_unique<MethodContext>(model);
    context->length = 1000;
    context->batches = {{test::wavy_images(16, model.image_size()), at::ones({16})}};
    return context;
  }

  /// A run of the example: an epoch is four steps.
  std::string run_table(int epochs, const std::string& precision = "fp64") const {
    const MethodExample of = example();
    const std::int64_t side = base_model()->image_size();
    std::string table = cat("epochs = ", epochs, "\nglobal_batch = 32\nprecision = '", precision,
                            "'\nseed = 3\n[dataset]\nname = 'synthetic'\ntrain_size = 128\n",
                            "test_size = 40\nclasses = 4\nimage_size = ", side,
                            "\n[optimizer]\nname = 'adamw'\nlr = 2e-3\n[model]\nname = '", of.model,
                            "'\n", of.model_params, "\n[[methods]]\n", of.params, "\n");
    return table;
  }
};

at::Tensor logits_of(Model& model) {
  const at::NoGradGuard no_grad;
  model.eval();
  ForwardState state;
  return model.forward(test::wavy_images(5, model.image_size()), state);
}

/// All tensors by name, copied.
std::map<std::string, at::Tensor> weights_of(const Model& model) {
  std::map<std::string, at::Tensor> weights;
  for (const auto& [name, tensor] : named_tensors(model)) weights[name] = tensor.detach().clone();
  return weights;
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
  const auto context = context_for(*model);
  MethodStack stack({component()});
  stack.apply(*context);
  EXPECT_FALSE(context->surgeon().edits().empty());
  stack.finalize(context->surgeon());

  const auto replayed = base_model();
  Surgeon surgeon(*replayed);
  for (const Edit& edit : context->surgeon().edits()) {
    surgeon.apply(edit_from_json(nlohmann::json::parse(to_json(edit).dump())));
  }
  EXPECT_EQ(surgeon.edits(), context->surgeon().edits());
  const auto weights = weights_of(*model);
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : named_tensors(*replayed)) {
    ASSERT_TRUE(weights.contains(name)) << name;
    tensor.copy_(weights.at(name));
  }
  EXPECT_EQ(weights_of(*replayed).size(), weights.size());
  EXPECT_TRUE(at::equal(logits_of(*model), logits_of(*replayed)));
}

TEST_P(MethodConformance, ChangesTheModelInTheEnd) {
  const auto model = base_model();
  const at::Tensor before = logits_of(*model);
  const std::int64_t cost = measure_cost(*model).macs;
  const auto context = context_for(*model);
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
  const auto context = context_for(*model);
  MethodStack first({component()});
  first.apply(*context);
  first.finalize(context->surgeon());
  const std::vector<Edit> edits = context->surgeon().edits();
  // A search may well find other places the second time; the same edits must be refused.
  for (const Edit& edit : edits) EXPECT_THROW(context->surgeon().apply(edit), Error);
  EXPECT_EQ(context->surgeon().edits(), edits);
}

/// tome_and_recipes.md A12 read off the edits: removed attention costs nothing, merging shortens.
std::int64_t closed_form(const Model& model, const std::vector<Edit>& edits) {
  const auto parameters = model.named_parameters();
  std::int64_t tokens = parameters["pos_embed"].size(1);
  const std::int64_t dim = parameters["pos_embed"].size(2);
  std::int64_t macs = (tokens - 1) * parameters["patch_embed.proj.weight"].numel() +
                      parameters["head.weight"].numel();
  std::set<int> removed;
  std::map<int, std::int64_t> merged;
  for (const Edit& edit : edits) {
    if (const auto* removal = std::get_if<RemoveMixer>(&edit)) removed.insert(removal->block);
    if (const auto* insert = std::get_if<InsertReducer>(&edit)) {
      merged[insert->block] = insert->params.find("r")->as_int();
    }
  }
  for (int block = 0; parameters.contains(cat("blocks.", block, ".norm2.weight")); ++block) {
    const std::int64_t hidden = parameters[cat("blocks.", block, ".mlp.fc1.weight")].size(0);
    if (!removed.contains(block)) macs += 4 * tokens * dim * dim + 2 * tokens * tokens * dim;
    tokens -= std::min(merged[block], (tokens - 1) / 2);
    macs += 2 * tokens * dim * hidden;
  }
  return macs;
}

TEST_P(MethodConformance, CostsWhatAFormulaSays) {
  if (!example().model.starts_with("vit")) GTEST_SKIP() << "the formula is that of transformers";
  const auto model = base_model();
  const auto context = context_for(*model);
  MethodStack stack({component()});
  stack.apply(*context);
  stack.finalize(context->surgeon());
  EXPECT_EQ(measure_cost(*model).macs, closed_form(*model, context->surgeon().edits()));
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

/// ||a - b|| / ||a|| over all tensors but key biases, whose true gradient is zero.
double distance(const RunRecord& a, const RunRecord& b) {
  double difference = 0, norm = 0;
  EXPECT_EQ(a.weights.size(), b.weights.size());
  for (const auto& [name, tensor] : a.weights) {
    at::Tensor first = tensor, second = b.weights.at(name);
    if (name.ends_with("attn.qkv.bias")) {
      const std::int64_t dim = tensor.size(0) / 3;
      first = at::cat({tensor.narrow(0, 0, dim), tensor.narrow(0, 2 * dim, dim)});
      second = at::cat({second.narrow(0, 0, dim), second.narrow(0, 2 * dim, dim)});
    }
    difference += (first - second).square().sum().item<double>();
    norm += first.square().sum().item<double>();
  }
  return std::sqrt(difference / norm);
}

TEST_P(MethodConformance, TwoRanksTrainAsOneDoes) {
  const TempFolder alone, shared, cut;
  const RunSpec spec = test::resolve_small(run_table(4));
  const RunRecord one = test::run_small(spec, alone.path());
  const RunRecord two = test::run_small(spec, shared.path(), 2);
  EXPECT_EQ(one.structure, two.structure);
  EXPECT_LT(distance(one, two), 1e-9);
  const RunRecord four = test::run_small(spec, cut.path(), 1, 8);
  EXPECT_EQ(one.structure, four.structure);
  EXPECT_LT(distance(one, four), 1e-9) << "micro-batches";
}

void expect_same_bits(const RunRecord& a, const RunRecord& b) {
  EXPECT_EQ(a.structure, b.structure);
  EXPECT_EQ(a.series, b.series);
  EXPECT_EQ(a.finals, b.finals);
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (const auto& [name, tensor] : a.weights) {
    EXPECT_TRUE(at::equal(tensor, b.weights.at(name))) << name;
  }
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
  expect_same_bits(undisturbed, test::read_run(spec, environment, environment.attempt));
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
    expect_same_bits(records[i], test::read_run(specs[i], test::environment_in(together.path())));
  }
  EXPECT_GT(distance(records[0], records[1]), 1e-3) << "seeds must matter";
}

INSTANTIATE_TEST_SUITE_P(All, MethodConformance, testing::ValuesIn(Registry<MethodInfo>::names()),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace ablate
