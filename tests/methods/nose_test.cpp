#include <cmath>
#include <numbers>
#include <vector>

#include <gtest/gtest.h>

#include "methods/method_stack.h"
#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/methods/nose_support.h"
#include "tests/support/method_context.h"
#include "tests/support/models.h"

namespace ablate {
namespace {

using test::golden_batches;
using test::golden_images;
using test::golden_vit;
using test::make_nose;
using test::message_of;
using test::method_component;
using test::MethodContext;

/// (skip, branch) of block 1 at each step of a run.
std::vector<std::pair<double, double>> follow(MethodStack& nose, MethodContext& context) {
  std::vector<std::pair<double, double>> gains;
  const Block& block = *context.surgeon().model().blocks()[1];
  for (context.now = 0; context.now < context.length * context.per_epoch; ++context.now) {
    nose.between_steps(context);
    gains.emplace_back(block.attention_gains().skip, block.attention_gains().branch);
    EXPECT_EQ(nose.settled(), block.mixer() == nullptr);
  }
  return gains;
}

TEST(Nose, FadesTheBranchIntoTheIdentityAndThenRemovesIt) {
  using Gains = std::vector<std::pair<double, double>>;
  const double third = 1 - 1.0 / 3, two_thirds = 1 - 2.0 / 3;
  const std::pair<const char*, Gains> rows[] = {
      {"",
       {{1, 1},
        {1, 1},
        {2 - third, third},
        {2 - third, third},
        {2 - two_thirds, two_thirds},
        {2 - two_thirds, two_thirds},
        {2, 0},
        {2, 0}}},
      {"dilution_epochs = 2",
       {{1, 1}, {1, 1}, {1.5, 0.5}, {1.5, 0.5}, {2, 0}, {2, 0}, {2, 0}, {2, 0}}},
      {"dilution_epochs = 2\ndilution_per = 'step'",
       {{1, 1}, {1.25, 0.75}, {1.5, 0.5}, {1.75, 0.25}, {2, 0}, {2, 0}, {2, 0}, {2, 0}}},
      {"dilution_epochs = 2\ncompensation = false",
       {{1, 1}, {1, 1}, {1, 0.5}, {1, 0.5}, {1, 0}, {1, 0}, {1, 0}, {1, 0}}},
      {"direct = true", Gains(8, {2, 0})},
  };
  for (const auto& [settings, expected] : rows) {
    const auto model = golden_vit();
    MethodContext context(*model);
    context.length = 4;
    context.per_epoch = 2;
    MethodStack nose = make_nose(cat("layers = [1]\n", settings));
    nose.apply(context);
    EXPECT_EQ(follow(nose, context), expected) << settings;
    const double skip = expected.back().first;
    std::vector<Edit> edits{RemoveMixer{1}};
    if (skip == 2) edits.insert(edits.begin(), SetGains{1, 2, 0});
    if (skip == 1) edits.insert(edits.begin(), SetGains{1, 1, 0});
    EXPECT_EQ(context.surgeon().edits(), edits) << settings;
  }
}

// Marking changes nothing, and at lambda = 0 neither does removal: both are checked when made.
TEST(Nose, TellsThatMarkingAndRemovalMoveNoLogit) {
  const auto model = golden_vit();
  MethodContext context(*model);
  context.length = 2;
  MethodStack nose = make_nose("layers = [0, 2]");
  nose.apply(context);
  context.now = 1;
  nose.between_steps(context);
  std::vector<nlohmann::json> checks;
  for (const auto& [kind, body] : context.events) {
    if (kind == "neutral_edit") checks.push_back(body);
  }
  ASSERT_EQ(checks.size(), 2U);
  for (const nlohmann::json& check : checks) {
    EXPECT_EQ(check.at("max_logit_change").get<double>(), 0.0);
  }
  EXPECT_EQ(checks[0].at("edits").dump(),
            R"([{"block":0,"edit":"mark_retiring"},{"block":2,"edit":"mark_retiring"}])");
  EXPECT_EQ(checks[1].at("edits").dump(),
            R"([{"block":0,"edit":"remove_mixer"},{"block":2,"edit":"remove_mixer"}])");
}

// lambda of the published schedule at chosen epochs.
TEST(Nose, FollowsThePublishedSchedule) {
  const auto model = golden_vit();
  MethodContext context(*model);
  context.length = 400;
  context.per_epoch = 625;
  MethodStack nose = make_nose("layers = [0]\ndilution_epochs = 299");
  nose.apply(context);
  const std::pair<std::int64_t, double> rows[] = {
      {0, 1},           {1, 0.9966555}, {100, 0.6655518}, {150, 0.49833},
      {298, 0.0033445}, {299, 0},       {399, 0}};
  for (const auto& [epoch, lambda] : rows) {
    context.now = epoch * 625 + 17;
    nose.between_steps(context);
    EXPECT_NEAR(model->blocks()[0]->attention_gains().branch, lambda, 5e-6) << epoch;
    EXPECT_EQ(nose.settled(), epoch >= 299);
  }
  EXPECT_EQ(context.metrics.at("nose/lambda").size(), 5U);
  EXPECT_EQ(context.metrics.at("nose/lambda").back(), 0.0);
}

TEST(Nose, ContinuesFromItsSavedState) {
  const auto model = golden_vit();
  MethodContext context(*model);
  context.length = 4;
  context.batches = golden_batches();
  MethodStack first = make_nose("remove = 2");
  first.apply(context);
  context.now = 1;
  first.between_steps(context);

  // As a resume does: a new stack, its state, the recorded edits; apply() is not called.
  MethodStack second = make_nose("remove = 2");
  second.load(nlohmann::json::parse(first.save().dump()));
  const auto restored = golden_vit();
  MethodContext resumed(*restored);
  resumed.length = 4;
  for (const Edit& edit : context.surgeon().edits()) resumed.surgeon().apply(edit);
  for (std::int64_t step = 1; step < 4; ++step) {
    context.now = resumed.now = step;
    first.between_steps(context);
    second.between_steps(resumed);
    EXPECT_EQ(resumed.surgeon().edits(), context.surgeon().edits()) << step;
    EXPECT_EQ(second.settled(), first.settled()) << step;
  }
  EXPECT_TRUE(second.settled());
  EXPECT_TRUE(resumed.visited.empty()) << "a selection must not be taken twice";
}

TEST(Nose, IsDeployableAfterFinalizeWheneverThatComes) {
  const auto model = golden_vit();
  MethodContext context(*model);
  context.length = 4;
  MethodStack nose = make_nose("layers = [0, 2]");
  nose.apply(context);
  context.now = 1;
  nose.between_steps(context);
  EXPECT_FALSE(nose.settled());
  nose.finalize(context.surgeon());
  EXPECT_TRUE(nose.settled());
  EXPECT_EQ(model->blocks()[0]->mixer(), nullptr);
  EXPECT_EQ(model->blocks()[2]->attention_gains().skip, 2.0);
}

TEST(Nose, RemovesAtOnceInARunWithoutTraining) {
  const auto model = golden_vit();
  MethodContext context(*model);
  MethodStack nose = make_nose("layers = [1]");
  nose.apply(context);
  EXPECT_TRUE(nose.settled());
  EXPECT_EQ(model->blocks()[1]->mixer(), nullptr);
}

// What five layers of DeiT-B hold, by three ways of counting.
TEST(Nose, RemovesThePublishedShareOfParameters) {
  const auto model = test::make_model("deit_base_patch16_224", "", 1000);
  const auto parameters = model->named_parameters();
  const auto share = [&](std::initializer_list<const char*> layers) {
    std::int64_t count = 0;
    for (const char* layer : layers) {
      for (const char* kind : {".weight", ".bias"}) {
        count += parameters[cat("blocks.0.", layer, kind)].numel();
      }
    }
    return 500.0 * static_cast<double>(count) / static_cast<double>(test::parameter_count(*model));
  };
  EXPECT_NEAR(share({"norm1", "attn.qkv", "attn.proj"}), 13.654, 5e-4);
  EXPECT_NEAR(share({"attn.qkv", "attn.proj"}), 13.645, 5e-4);
  EXPECT_NEAR(share({"norm1", "attn.qkv", "attn.proj", "norm2"}), 13.662, 5e-4);

  MethodContext context(*model);
  const std::int64_t before = test::parameter_count(*model);
  make_nose("layers = [0, 1, 3, 4, 6]").apply(context);
  EXPECT_EQ(before - test::parameter_count(*model), 5 * (4 * 768 * 768 + 6 * 768));
}

at::Tensor weighted_sum(Model& model) {
  ForwardState state;
  const at::Tensor logits = model.forward(golden_images(), state);
  return (logits * at::arange(10, at::kDouble).cos().view({2, 5})).sum();
}

// The branch that is gone has none, and the others match.
TEST(Dilution, AtZeroHasTheGradientsOfTheShrunkNetwork) {
  const auto diluted = golden_vit(), shrunk = golden_vit();
  Surgeon keep(*diluted), cut(*shrunk);
  keep.apply(SetGains{1, 2, 0});
  cut.apply(SetGains{1, 2, 0});
  cut.apply(RemoveMixer{1});
  weighted_sum(*diluted).backward();
  weighted_sum(*shrunk).backward();
  const auto parameters = diluted->named_parameters();
  for (const auto& item : shrunk->named_parameters()) {
    EXPECT_TRUE(at::equal(parameters[item.key()].grad(), item.value().grad())) << item.key();
  }
  for (const char* name :
       {"blocks.1.norm1.weight", "blocks.1.attn.qkv.weight", "blocks.1.attn.proj.bias"}) {
    EXPECT_FALSE(parameters[name].grad().defined()) << name;
  }
}

TEST(Dilution, UnderWayHasTheGradientOfItsFormula) {
  const auto model = golden_vit();
  Surgeon surgeon(*model);
  surgeon.apply(SetGains{1, 1.7, 0.3});
  weighted_sum(*model).backward();
  const at::NoGradGuard no_grad;
  for (auto& item : model->named_parameters()) {
    at::Tensor& parameter = item.value();
    const at::Tensor direction =
        at::arange(parameter.numel(), at::kDouble).mul(1.7).sin().view_as(parameter);
    const double slope = (parameter.grad() * direction).sum().item<double>();
    const at::Tensor original = parameter.clone();
    parameter.copy_(original + 1e-5 * direction);
    const double above = weighted_sum(*model).item<double>();
    parameter.copy_(original - 1e-5 * direction);
    const double below = weighted_sum(*model).item<double>();
    parameter.copy_(original);
    EXPECT_NEAR((above - below) / 2e-5, slope, 1e-6 * std::max(1.0, std::abs(slope))) << item.key();
  }
}

TEST(Dilution, NeverDropsTheIdentityPart) {
  const auto model = test::make_model("vit",
                                      "depth = 1\nembed_dim = 8\nnum_heads = 2\nimage_size = 8\n"
                                      "drop_path = 0.7\ndrop_path_mode = 'constant'");
  model->initialize(2);
  model->train();
  Block& block = *model->blocks()[0];
  block.set_attention_gains({1.75, 0.25});
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::arange(200 * 5 * 8, at::kFloat).mul(0.37).sin().view({200, 5, 8});
  ForwardState state;
  const at::Tensor y = block.forward({x, {}, {}}, state).value();
  std::int64_t untouched = 0;
  for (std::int64_t row = 0; row < 200; ++row) {
    if (at::equal(y[row], x[row] * 1.75)) ++untouched;
  }
  // Both branches of a sample are dropped with probability 0.49.
  EXPECT_NEAR(static_cast<double>(untouched) / 200, 0.49, 4 * std::sqrt(0.49 * 0.51 / 200));
}

TEST(Nose, RefusesSettingsThatContradict) {
  const auto refusal = [](const char* settings) {
    return message_of<SpecError>([&] { method_component(cat("name = 'nose'\n", settings)); });
  };
  EXPECT_NE(refusal("").find("set remove = K, or layers"), std::string::npos);
  EXPECT_NE(refusal("layers = [1, 2]\nremove = 3").find("leave one of them out"),
            std::string::npos);
  EXPECT_NE(refusal("layers = [2, 1, 2]").find("twice"), std::string::npos);
  EXPECT_NE(refusal("remove = 1\nreadout = 'block'").find("logits, features"), std::string::npos);
  EXPECT_NE(refusal("remove = 1\ndecide_on = 'test'").find("train, holdout"), std::string::npos);
}

TEST(Nose, RefusesModelsAndRunsThatItDoesNotFit) {
  const auto refusal = [](const char* settings, std::int64_t epochs) {
    const auto model = golden_vit();
    MethodContext context(*model);
    context.batches = golden_batches();
    context.length = epochs;
    MethodStack nose = make_nose(settings);
    return message_of<SpecError>([&] { nose.apply(context); });
  };
  EXPECT_NE(refusal("remove = 3", 4).find("3 layers to remove, but the model has 3"),
            std::string::npos);
  EXPECT_NE(refusal("layers = [3]", 4).find("blocks are 0 to 2"), std::string::npos);
  EXPECT_NE(refusal("layers = [1]\ndilution_epochs = 4", 4).find("lambda is still 0.25"),
            std::string::npos);
  EXPECT_NE(refusal("layers = [1]", 1).find("lambda is still 1"), std::string::npos);
}

TEST(Nose, ResolvedSettingsResolveToThemselves) {
  for (const char* settings : {"remove = 3", "layers = [4, 1]\ndilution_shape = 'cosine'"}) {
    const Component once = method_component(cat("name = 'nose'\n", settings));
    Params params(once.params, "again");
    Registry<MethodInfo>::get("nose").make(params);
    params.finish();
    EXPECT_EQ(params.resolved(), once.params) << settings;
  }
}

}  // namespace
}  // namespace ablate
