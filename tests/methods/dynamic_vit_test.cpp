#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "methods/models/random_numbers.h"
#include "runner/core/error.h"
#include "runner/measure/mac_counter.h"
#include "tests/core/expect_error.h"
#include "tests/methods/reduction_support.h"

namespace ablate {
namespace {

using test::apply_method;
using test::Counts;
using test::MethodContext;

std::int64_t predictor_macs(std::int64_t dim, std::int64_t tokens) {
  return tokens * (dim * dim + dim * dim / 2 + dim / 2 * dim / 4 + dim / 4 * 2);
}

// Parameters of the public models, with three predictors.
TEST(DynamicViT, HasThePublishedParameters) {
  const std::pair<const char*, std::int64_t> rows[] = {{"deit_base_patch16_224", 89'452'846},
                                                       {"deit_small_patch16_224", 22'774'414},
                                                       {"deit_tiny_patch16_224", 5'899'582}};
  for (const auto& [name, parameters] : rows) {
    const auto model = test::make_model(name, "", 1000);
    Surgeon surgeon(*model);
    const std::int64_t dim = model->blocks()[0]->norm2().weight.size(0);
    for (const int block : {3, 6, 9}) {
      surgeon.apply(InsertReducer{block, "dynamic_vit",
                                  Value::Table{{"dim", dim}, {"keep", 0.7}, {"left", 137}}});
    }
    EXPECT_EQ(test::parameter_count(*model), parameters) << name;
  }
}

// 0.7, 0.49 and 0.343 of 196 tokens from blocks 3, 6 and 9 on; 2.9 G is published for DeiT-S.
TEST(DynamicViT, LeavesThePublishedTokensAndCosts) {
  const Counts tokens{197, 197, 197, 138, 138, 138, 97, 97, 97, 68, 68, 68};
  const auto macs_of = [&](std::int64_t dim, std::int64_t classes) {
    return test::deit_macs(dim, classes, tokens, tokens) + predictor_macs(dim, 196) +
           predictor_macs(dim, 137) + predictor_macs(dim, 96);
  };
  const auto model = test::narrow_deit();
  MethodContext context(*model);
  apply_method(context, "name = 'dynamic_vit'");
  EXPECT_EQ(test::reducing_blocks(context), (std::vector<int>{3, 6, 9}));
  EXPECT_EQ(test::token_counts(*model), tokens);
  EXPECT_EQ(measure_cost(*model).macs, macs_of(8, 10));
  EXPECT_EQ(std::floor(static_cast<double>(macs_of(384, 1000)) / 1e8), 29);
}

/// A model with stages in front of blocks 1 and 2.
struct Staged {
  explicit Staged(const std::string& settings = "") : model(test::textured_vit()), context(*model) {
    stack.emplace(std::vector{
        test::method_component("name = 'dynamic_vit'\nblocks = [1, 2]\nkeep = 0.5\n" + settings)});
    stack->apply(context);
    const at::NoGradGuard no_grad;
    for (auto& item : model->named_parameters()) {
      // Predictors that tell tokens apart.
      if (item.key().find("predictor") != std::string::npos && item.value().dim() > 1) {
        item.value().mul_(30);
      }
    }
  }

  ForwardState pass(const std::vector<std::string>& taps = {}) const {
    ForwardState state;
    state.seed = 3;
    state.step = 5;
    for (const std::string& tap : taps) state.taps[tap];
    model->forward(images, state);
    return state;
  }

  std::shared_ptr<Model> model;
  MethodContext context;
  std::optional<MethodStack> stack;
  at::Tensor images = test::wavy_images(3, 16, at::kDouble);
};

/// Log-probabilities of a stage, written down once more: tokens (B, T, C) of those in `there`.
at::Tensor scores(Model& model, const std::string& stage, const at::Tensor& tokens,
                  const at::Tensor& there) {
  const auto parameters = model.named_parameters();
  const auto linear = [&](const at::Tensor& x, const char* layer) {
    const std::string name = cat(stage, ".predictor.", layer);
    return at::linear(x, parameters[name + ".weight"], parameters[name + ".bias"]);
  };
  const at::Tensor normed =
      at::layer_norm(tokens, {16}, parameters[stage + ".predictor.norm.weight"],
                     parameters[stage + ".predictor.norm.bias"], 1e-5);
  const at::Tensor f = at::gelu(linear(normed, "embed"));
  const at::Tensor own = f.narrow(2, 0, 8);
  const at::Tensor weights = there.unsqueeze(2) / there.sum(1).view({-1, 1, 1});
  const at::Tensor mean = (f.narrow(2, 8, 8) * weights).sum(1, true).expand_as(own);
  const at::Tensor h = at::gelu(linear(at::cat({own, mean}, 2), "hidden"));
  return at::log_softmax(linear(at::gelu(linear(h, "narrow")), "score"), -1);
}

TEST(DynamicViT, InEvaluationKeepsThoseWithTheHighestScore) {
  const Staged staged;
  staged.model->eval();
  const at::NoGradGuard no_grad;
  const ForwardState state = staged.pass({"blocks.0", "blocks.1", "blocks.1.mlp", "blocks.1.attn"});
  const at::Tensor x = state.taps.at("blocks.0");
  const at::Tensor score =
      scores(*staged.model, "blocks.1.reducer", x.narrow(1, 1, 16), at::ones({3, 16}, at::kDouble))
          .select(2, 0);
  const at::Tensor kept = std::get<1>(score.topk(8)) + 1;
  const at::Tensor before_attention =
      state.taps.at("blocks.1") - state.taps.at("blocks.1.mlp") - state.taps.at("blocks.1.attn");
  ASSERT_EQ(before_attention.size(1), 9);
  for (std::int64_t sample = 0; sample < 3; ++sample) {
    EXPECT_LT(test::largest_difference(before_attention[sample].narrow(0, 1, 8),
                                       x[sample].index_select(0, kept[sample])),
              1e-12);
  }
}

TEST(DynamicViT, InTrainingDrawsMasksOfTokensThatAreStillThere) {
  const Staged staged;
  staged.model->train();
  const at::NoGradGuard no_grad;
  const ForwardState state = staged.pass({"blocks.0", "blocks.1"});
  at::Tensor there = at::ones({3, 16}, at::kDouble);
  std::vector<double> losses;
  for (const int block : {1, 2}) {
    const std::string stage = cat("blocks.", block, ".reducer");
    const at::Tensor x = state.taps.at(cat("blocks.", block - 1));
    ASSERT_EQ(x.size(1), 17) << "nobody goes in training";
    const at::Tensor noise =
        -(-uniform_numbers(state, stage, 3, 32, x).log()).log().view({3, 16, 2});
    const at::Tensor noisy = scores(*staged.model, stage, x.narrow(1, 1, 16), there) + noise;
    there = there * (noisy.select(2, 0) > noisy.select(2, 1)).to(at::kDouble);
    losses.push_back((there.mean(1) - std::pow(0.5, block)).square().mean().item<double>());
  }
  EXPECT_TRUE(at::equal(state.token_mask.narrow(1, 1, 16), there));
  EXPECT_TRUE((state.token_mask.select(1, 0) == 1).all().item<bool>());
  EXPECT_GT(there.sum().item<double>(), 0.0);
  ASSERT_EQ(state.reducer_losses.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(state.reducer_losses[i].item<double>(), losses[i], 1e-14);
  }
}

// Whoever computes an image, and with which others.
TEST(DynamicViT, DrawsForThePositionOfAnImage) {
  Staged staged;
  staged.model->train();
  const at::NoGradGuard no_grad;
  const ForwardState state = staged.pass({"norm"});
  const at::Tensor images = staged.images;
  for (std::int64_t sample = 0; sample < 3; ++sample) {
    ForwardState again;
    again.seed = 3;
    again.step = 5;
    again.first_position = sample;
    again.taps["norm"];
    staged.model->forward(images.narrow(0, sample, 1), again);
    EXPECT_LT(test::largest_difference(again.taps["norm"][0], state.taps.at("norm")[sample]),
              1e-12);
    EXPECT_TRUE(at::equal(again.token_mask[0], state.token_mask[sample]));
  }
}

TEST(DynamicViT, AddsTheDistanceFromTheKeptSharesToTheLoss) {
  Staged staged("ratio_weight = 3.0");
  staged.model->train();
  const ForwardState state = staged.pass();
  staged.stack->after_pass(staged.context, state);
  const at::Tensor base = at::full({}, 2.5, at::kDouble);
  const at::Tensor loss = staged.stack->in_step(staged.context, base);
  const double ratio =
      (state.reducer_losses[0].item<double>() + state.reducer_losses[1].item<double>()) / 2;
  EXPECT_NEAR(loss.item<double>(), 2.5 + 3.0 * ratio, 1e-14);
  // Decisions are steps, their gradient is that of the probabilities.
  loss.backward();
  for (const auto& item : staged.model->named_parameters()) {
    if (item.key().find("predictor.score.weight") == std::string::npos) continue;
    EXPECT_GT(item.value().grad().norm().item<double>(), 0.0) << item.key();
  }
}

TEST(DynamicViT, LearnsToKeepTheShareThatIsAskedFor) {
  Staged staged;
  staged.model->train();
  std::vector<at::Tensor> predictors;
  for (const auto& item : staged.model->named_parameters()) {
    if (item.key().find("predictor") != std::string::npos) predictors.push_back(item.value());
  }
  const auto distance = [&](std::int64_t step) {
    ForwardState state;
    state.step = step;
    staged.model->forward(staged.images, state);
    staged.stack->after_pass(staged.context, state);
    return staged.stack->in_step(staged.context, at::zeros({}, at::kDouble));
  };
  const auto mean_distance = [&] {
    double sum = 0;
    for (std::int64_t step = 1000; step < 1040; ++step) sum += distance(step).item<double>() / 40;
    return sum;
  };
  {
    const at::NoGradGuard no_grad;  // far from half of them
    for (const char* stage : {"blocks.1", "blocks.2"}) {
      staged.model->named_parameters()[cat(stage, ".reducer.predictor.score.bias")][0].fill_(4.0);
    }
  }
  const double before = mean_distance();
  for (std::int64_t step = 0; step < 60; ++step) {
    for (at::Tensor& parameter : predictors) parameter.mutable_grad() = at::Tensor();
    distance(step).backward();
    const at::NoGradGuard no_grad;
    for (at::Tensor& parameter : predictors) parameter.sub_(parameter.grad() * 0.5);
  }
  EXPECT_LT(mean_distance(), 0.5 * before);
}

TEST(DynamicViT, DrawsItsPredictorsFromSeedAndName) {
  const auto weights = [](const char* blocks) {
    const auto model = test::textured_vit();
    MethodContext context(*model);
    apply_method(context, cat("name = 'dynamic_vit'\nblocks = ", blocks));
    return model->named_parameters()["blocks.2.reducer.predictor.embed.weight"].clone();
  };
  EXPECT_TRUE(at::equal(weights("[2]"), weights("[1, 2]")));
  EXPECT_NEAR(weights("[2]").std().item<double>(), 0.02, 0.004);
}

TEST(DynamicViT, RefusesWhatItCannotDo) {
  const auto refusal = [](const std::string& settings, const char* shape) {
    return test::message_of<SpecError>([&] {
      const auto model = test::make_model("vit", shape);
      model->initialize(1);
      MethodContext context(*model);
      apply_method(context, "name = 'dynamic_vit'\n" + settings);
    });
  };
  constexpr const char* kSmall =
      "image_size = 16\npatch_size = 4\nembed_dim = 16\nnum_heads = 2\ndepth = 3";
  EXPECT_NE(refusal("keep = 0.05", kSmall).find("nothing is left"), std::string::npos);
  EXPECT_NE(refusal("blocks = [7]", kSmall).find("blocks are 0 to 2"), std::string::npos);
  EXPECT_NE(refusal("", "image_size = 16\npatch_size = 4\nembed_dim = 6\nnum_heads = 1\ndepth = 3")
                .find("multiple of 4"),
            std::string::npos);
}

}  // namespace
}  // namespace ablate
