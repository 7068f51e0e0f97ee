#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "methods/models/dense.h"
#include "methods/nose_search.h"
#include "methods/transfer_entropy.h"
#include "runner/core/error.h"
#include "tests/conformance/method_examples.h"
#include "tests/core/expect_error.h"

// Methods on the backbones of dense models.

namespace ablate {
namespace {

using test::largest_difference;
using test::logits_of;
using test::MethodContext;

constexpr std::int64_t kDenseClasses = 5;
constexpr const char* kDenseVit =
    "image_size = 32\npatch_size = 4\nembed_dim = 16\nnum_heads = 2\ndepth = 4\n";
constexpr const char* kDenseHead = "channels = 8\npool_scales = [1, 2]\nauxiliary_channels = 8\n";

std::shared_ptr<Model> dense_model(const std::string& name, const std::string& settings) {
  auto model = test::make_model(name, settings, kDenseClasses);
  model->initialize(2);
  model->eval();
  return model;
}

std::shared_ptr<Model> upernet() { return dense_model("upernet_vit", cat(kDenseVit, kDenseHead)); }

std::unique_ptr<MethodContext> dense_context(Model& model) {
  auto context = test::example_context(model);
  context->dense = true;
  context->classes = kDenseClasses;
  context->batches = {{test::wavy_images(6, model.image_size()), at::ones({6})}};
  return context;
}

/// Every method that a small dense model has places for, on the model of its own example.
std::vector<std::string> methods_of_dense_models() {
  std::vector<std::string> names;
  for (const std::string& name : Registry<MethodInfo>::names()) {
    // Those that tests register have none.
    if (!Registry<MethodInfo>::get(name).example) continue;
    const std::string model = "upernet_" + test::example_of(name).model;
    // Dropped tokens leave holes in a map.
    const bool drops = name == "random_pruning" || name == "dynamic_vit" || name == "diffrate";
    if (Registry<ModelInfo>::has(model) && !drops) names.push_back(name);
  }
  return names;
}

class DenseMethods : public testing::TestWithParam<std::string> {
 protected:
  MethodExample dense_example() const {
    MethodExample example = test::example_of(GetParam());
    example.model = "upernet_" + example.model;
    example.model_params += cat("\n", kDenseHead);
    return example;
  }
};

// Edits speak of the backbone's places, and a checkpoint makes the dense model from them.
TEST_P(DenseMethods, ChangeTheBackboneAndReplay) {
  const MethodExample example = dense_example();
  const Component component = test::method_component(example.params);
  ASSERT_NO_THROW(check_methods(Registry<ModelInfo>::get(example.model), {component}, "example"));
  const auto model = test::example_model(example);
  const auto plain = test::example_model(example);
  model->eval();
  plain->eval();
  const auto context = dense_context(*model);
  context->classes = 4;
  MethodStack stack({component});
  stack.apply(*context);
  stack.finalize(context->surgeon());
  EXPECT_FALSE(context->surgeon().edits().empty());
  const auto replayed =
      test::replayed_model(example, context->surgeon().edits(), test::weights_of(*model));
  replayed->eval();
  const at::Tensor images = test::wavy_images(2, model->image_size());
  EXPECT_TRUE(at::equal(logits_of(*model, images), logits_of(*replayed, images)));
  EXPECT_EQ(logits_of(*model, images).sizes(), logits_of(*plain, images).sizes());
  const bool cheaper = measure_cost(*plain).macs != measure_cost(*model).macs;
  EXPECT_TRUE(cheaper || !at::equal(logits_of(*model, images), logits_of(*plain, images)));
}

INSTANTIATE_TEST_SUITE_P(All, DenseMethods, testing::ValuesIn(methods_of_dense_models()),
                         [](const auto& name) { return name.param; });

TEST(DenseNose, CountsEveryPlaceAsASample) {
  const auto model = upernet();
  const auto context = dense_context(*model);
  using namespace methods::nose;
  search(*context, {.layers = {}, .remove = 1, .samples = 6, .split = DecisionSplit::Train});
  std::vector<double> entropies;
  const auto measure = [&](int skipped) {
    Block* block = skipped < 0 ? nullptr : model->blocks()[static_cast<std::size_t>(skipped)];
    if (block) block->set_attention_gains({1.0, 0.0});
    const at::Tensor logits = logits_of(*model, context->batches[0].first).to(at::kDouble);
    if (block) block->set_attention_gains({});
    double sum = 0;
    for (std::int64_t k = 0; k < kDenseClasses; ++k) {
      sum += std::log2(logits.select(1, k).std(/*unbiased=*/true).item<double>());
    }
    return sum;
  };
  double least = 1e9;
  for (int block = 0; block < 4; ++block) least = std::min(least, measure(-1) - measure(block));
  EXPECT_NEAR(context->metrics.at("nose/te_set").front(), least, 1e-6);
}

TEST(DenseToMe, CopiesMergedTokensBackToTheirPlaces) {
  const auto model = dense_model("linear_vit", kDenseVit);
  Surgeon surgeon(*model);
  for (const int block : {1, 3}) {
    surgeon.apply(InsertReducer{
        block, "tome",
        Value::Table{
            {"r", std::int64_t{20}}, {"prop_attn", true}, {"metric", std::string("keys")}}});
  }
  const std::int64_t places = 64, left = 1 + places - 40;
  ForwardState state;
  state.taps["blocks.3"];
  const at::NoGradGuard no_grad;
  const at::Tensor logits = model->forward(test::wavy_images(2, 32), state);
  ASSERT_EQ(logits.sizes(), (std::vector<std::int64_t>{2, kDenseClasses, 8, 8}));
  const at::Tensor tokens = state.taps["blocks.3"];
  ASSERT_EQ(tokens.size(1), left);
  // Each place has the scores of one of the tokens, and every token but that of the class has some.
  const auto parameters = model->named_parameters();
  const at::Tensor normed = at::layer_norm(tokens, {16}, parameters["backbone.norm.weight"],
                                           parameters["backbone.norm.bias"], 1e-6);
  const at::Tensor scores = at::linear(normed, parameters["decode_head.head.weight"],
                                       parameters["decode_head.head.bias"]);
  const at::Tensor of_places = logits.flatten(2).transpose(1, 2);
  const at::Tensor distance = at::cdist(of_places.contiguous(), scores, 2.0, /*compute_mode=*/2);
  const auto [nearest, token] = distance.min(2);
  EXPECT_LT(nearest.max().item<double>(), 1e-5);
  for (std::int64_t b = 0; b < 2; ++b) {
    EXPECT_EQ(std::get<0>(at::_unique(token[b])).size(0), left - 1);
  }
}

TEST(DenseToMe, OfNothingIsThePlainModel) {
  const auto plain = upernet(), merging = upernet();
  Surgeon surgeon(*merging);
  // One token may not merge when all others are protected or gone: r is capped at half of them.
  surgeon.apply(InsertReducer{3, "tome", Value::Table{{"r", std::int64_t{1}}}});
  const at::Tensor images = test::wavy_images(2, 32);
  const at::Tensor before = logits_of(*plain, images), after = logits_of(*merging, images);
  EXPECT_EQ(before.sizes(), after.sizes());
  // Two places of 64 share a token behind the last block, and nothing else has moved before it.
  ForwardState first, second;
  for (ForwardState* state : {&first, &second}) state->taps["blocks.2"];
  const at::NoGradGuard no_grad;
  plain->forward(images, first);
  merging->forward(images, second);
  EXPECT_TRUE(at::equal(first.taps["blocks.2"], second.taps["blocks.2"]));
  EXPECT_FALSE(at::equal(before, after));
}

TEST(DenseToMe, TrainsThroughTheCopies) {
  const auto model = dense_model("linear_vit", kDenseVit);
  model->to(at::kDouble);
  Surgeon surgeon(*model);
  surgeon.apply(InsertReducer{1, "tome", Value::Table{{"r", std::int64_t{16}}}});
  model->train();
  const at::Tensor images = test::wavy_images(2, 32, at::kDouble);
  at::Tensor bias = model->named_parameters()["backbone.blocks.0.mlp.fc2.bias"];
  const auto loss = [&] {
    ForwardState state;
    return model->forward(images, state).sin().sum();
  };
  loss().backward();
  const double slope = bias.grad()[3].item<double>();
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-5;
  bias[3] += kStep;
  const double above = loss().item<double>();
  bias[3] -= 2 * kStep;
  EXPECT_NEAR((above - loss().item<double>()) / (2 * kStep), slope, 1e-5 * std::abs(slope) + 1e-7);
}

TEST(DenseModels, RefuseDroppedTokens) {
  for (const char* settings :
       {"name = 'random_pruning'", "name = 'tome'\noperation = 'prune'\nr = 8"}) {
    const auto model = upernet();
    const auto context = dense_context(*model);
    MethodStack stack({test::method_component(settings)});
    EXPECT_NE(test::message_of<Error>([&] { stack.apply(*context); }).find("leave holes"),
              std::string::npos)
        << settings;
  }
}

}  // namespace
}  // namespace ablate
