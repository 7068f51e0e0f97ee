#include <cmath>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "methods/models/attention.h"
#include "tests/core/expect_error.h"
#include "tests/support/models.h"

namespace ablate {
namespace {

using test::golden_images;
using test::golden_vit;
using test::logits_of;
using test::make_model;
using test::message_of;
using test::parameter_count;
using test::wavy_images;

std::vector<std::string> parameter_names(const torch::nn::Module& module) {
  std::vector<std::string> names;
  for (const auto& item : module.named_parameters()) names.push_back(item.key());
  return names;
}

// timm 0.3.2 computed these.
TEST(VisionTransformer, GivesTheLogitsOfTimm) {
  const at::Tensor expected =
      at::tensor({-0.5518426329, -0.1821732573, 0.0440058169, -0.3977749099, 0.9935061955,
                  -0.6785847024, -0.1597004896, -0.1003812609, -0.5625720386, 0.6592813717},
                 at::kDouble);
  const auto model = golden_vit();
  const at::Tensor logits = logits_of(*model, golden_images());
  EXPECT_LT((logits.flatten() - expected).abs().max().item<double>(), 2e-10);
  model->to(at::kFloat);
  const at::Tensor single = logits_of(*model, golden_images().to(at::kFloat));
  EXPECT_LT((single.flatten().to(at::kDouble) - expected).abs().max().item<double>(), 1e-5);
}

TEST(VisionTransformer, HasThePublishedParameterCounts) {
  struct Row {
    const char* name;
    std::int64_t classes, count;
  };
  const Row rows[] = {
      {"deit_tiny_patch16_224", 1000, 5'717'416},
      {"deit_small_patch16_224", 1000, 22'050'664},
      {"deit_base_patch16_224", 1000, 86'567'656},
      {"deit_tiny_patch16_224", 100, 5'543'716},
      {"deit_small_patch16_224", 100, 21'704'164},
      {"deit_base_patch16_224", 100, 85'875'556},
      {"deit_base_patch16_384", 1000, 86'567'656 + (24 * 24 - 14 * 14) * 768},
      // A token, its position and a second head more.
      {"deit_tiny_distilled_patch16_224", 1000, 5'717'416 + 2 * 192 + 193 * 1000},
      {"deit_small_distilled_patch16_224", 1000, 22'050'664 + 2 * 384 + 385 * 1000},
      {"deit_base_distilled_patch16_224", 1000, 87'338'192},
      {"deit_base_distilled_patch16_384", 1000, 87'338'192 + (24 * 24 - 14 * 14) * 768},
      // Smaller patches and fewer positions than DeiT's.
      {"vit_tiny_patch4_32", 100, 5'543'716 - 192 * 3 * (256 - 16) - 192 * (197 - 65)}};
  for (const Row& row : rows) {
    EXPECT_EQ(parameter_count(*make_model(row.name, "", row.classes)), row.count) << row.name;
  }
}

TEST(VisionTransformer, HasTimmsNamesAndShapes) {
  const auto model = make_model("deit_tiny_patch16_224", "", 1000);
  std::vector<std::string> expected{"cls_token", "pos_embed", "patch_embed.proj.weight",
                                    "patch_embed.proj.bias"};
  for (int i = 0; i < 12; ++i) {
    for (const char* layer : {"norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"}) {
      for (const char* kind : {"weight", "bias"}) {
        expected.push_back(cat("blocks.", i, ".", layer, ".", kind));
      }
    }
  }
  for (const char* name : {"norm.weight", "norm.bias", "head.weight", "head.bias"}) {
    expected.emplace_back(name);
  }
  EXPECT_EQ(expected.size(), 152U);
  EXPECT_EQ(parameter_names(*model), expected);
  const auto parameters = model->named_parameters();
  EXPECT_EQ(parameters["pos_embed"].sizes(), (std::vector<std::int64_t>{1, 197, 192}));
  EXPECT_EQ(parameters["patch_embed.proj.weight"].sizes(),
            (std::vector<std::int64_t>{192, 3, 16, 16}));
  EXPECT_EQ(parameters["blocks.11.attn.qkv.weight"].sizes(), (std::vector<std::int64_t>{576, 192}));
  EXPECT_EQ(parameters["blocks.0.mlp.fc2.weight"].sizes(), (std::vector<std::int64_t>{192, 768}));
}

// Touvron et al., ICML 2021: class token, distillation token, patches; two heads.
TEST(VisionTransformer, DistilledHasTimmsNamesAndShapes) {
  const auto plain = make_model("deit_tiny_patch16_224", "", 1000);
  const auto distilled = make_model("deit_tiny_distilled_patch16_224", "", 1000);
  const auto names = parameter_names(*plain), more = parameter_names(*distilled);
  std::set<std::string> expected(names.begin(), names.end());
  expected.insert({"dist_token", "head_dist.weight", "head_dist.bias"});
  EXPECT_EQ(std::set(more.begin(), more.end()), expected);
  EXPECT_EQ(more.size(), 155U);
  const auto parameters = distilled->named_parameters();
  EXPECT_EQ(parameters["pos_embed"].sizes(), (std::vector<std::int64_t>{1, 198, 192}));
  EXPECT_EQ(parameters["dist_token"].sizes(), (std::vector<std::int64_t>{1, 1, 192}));
  EXPECT_EQ(parameters["head_dist.weight"].sizes(), (std::vector<std::int64_t>{1000, 192}));
}

TEST(VisionTransformer, DistilledPutsItsTokenBehindTheClassToken) {
  const auto model = make_model(
      "vit", "image_size = 8\nembed_dim = 8\nnum_heads = 2\ndepth = 1\ndistilled = true");
  model->initialize(1);
  model->eval();
  const auto parameters = model->named_parameters();
  const at::NoGradGuard no_grad;
  ForwardState state;
  state.taps.try_emplace("patch_embed");
  model->forward(wavy_images(1, 8), state);
  const at::Tensor tokens = state.taps["patch_embed"][0], positions = parameters["pos_embed"][0];
  ASSERT_EQ(tokens.size(0), 2 + 4);
  EXPECT_EQ(state.protected_tokens, 2);
  EXPECT_TRUE(at::equal(tokens[0], parameters["cls_token"][0][0] + positions[0]));
  EXPECT_TRUE(at::equal(tokens[1], parameters["dist_token"][0][0] + positions[1]));
}

TEST(VisionTransformer, DistilledReturnsBothHeadsInTrainingAndTheirMeanOtherwise) {
  const auto model = make_model("deit_tiny_distilled_patch16_224", "image_size = 32", 7);
  model->initialize(3);
  const at::Tensor images = wavy_images(2, 32);
  model->train();
  const at::Tensor both = logits_of(*model, images);
  ASSERT_EQ(both.sizes(), (std::vector<std::int64_t>{2, 2, 7}));
  EXPECT_GT((both.select(1, 0) - both.select(1, 1)).abs().max().item<double>(), 1e-4);
  model->eval();
  EXPECT_TRUE(at::allclose(logits_of(*model, images), both.mean(1)));
}

TEST(VisionTransformer, FeaturesAreTheInputOfTheHead) {
  const auto model = golden_vit();
  const at::NoGradGuard no_grad;
  ForwardState state;
  const at::Tensor features = model->forward_features(golden_images(), state);
  const auto parameters = model->named_parameters();
  const at::Tensor logits =
      at::linear(features, parameters["head.weight"], parameters["head.bias"]);
  EXPECT_TRUE(at::equal(logits, logits_of(*model, golden_images())));
}

TEST(VisionTransformer, TapsKeepNamedTensorsAndLeaveTheLogits) {
  const auto model = golden_vit();
  const at::NoGradGuard no_grad;
  ForwardState state;
  state.taps = {{"blocks.0", {}}, {"blocks.1.attn", {}}, {"blocks.1.mlp", {}}, {"blocks.1", {}}};
  const at::Tensor logits = model->forward(golden_images(), state);
  EXPECT_TRUE(at::equal(logits, logits_of(*model, golden_images())));
  const at::Tensor sum =
      state.taps["blocks.0"] + state.taps["blocks.1.attn"] + state.taps["blocks.1.mlp"];
  EXPECT_LT((sum - state.taps["blocks.1"]).abs().max().item<double>(), 1e-12);
}

TEST(VisionTransformer, InitialisesEachParameterByItsNameAlone) {
  const auto shallow = make_model("vit", "depth = 2\nembed_dim = 48\nnum_heads = 3");
  const auto deep = make_model("vit", "depth = 3\nembed_dim = 48\nnum_heads = 3");
  shallow->initialize(5);
  deep->initialize(5);
  const auto parameters = deep->named_parameters();
  for (const auto& item : shallow->named_parameters()) {
    EXPECT_TRUE(at::equal(item.value(), parameters[item.key()])) << item.key();
  }
  const at::Tensor weight = parameters["blocks.0.mlp.fc1.weight"];
  EXPECT_NEAR(weight.std().item<double>(), 0.02, 0.0005);
  EXPECT_NEAR(weight.mean().item<double>(), 0.0, 0.001);
  EXPECT_FALSE(at::equal(weight, parameters["blocks.1.mlp.fc1.weight"]));
  const double bound = 1 / std::sqrt(48.0);  // fan-in 3 * 4 * 4
  EXPECT_LE(parameters["patch_embed.proj.weight"].abs().max().item<double>(), bound);
  EXPECT_GT(parameters["patch_embed.proj.weight"].abs().max().item<double>(), 0.98 * bound);
  EXPECT_EQ(parameters["blocks.0.attn.qkv.bias"].abs().max().item<double>(), 0.0);
  EXPECT_EQ(parameters["norm.weight"].min().item<double>(), 1.0);
  shallow->initialize(6);
  EXPECT_FALSE(at::equal(shallow->named_parameters()["cls_token"], parameters["cls_token"]));
}

TEST(VisionTransformer, RefusesShapesThatDoNotFit) {
  EXPECT_NE(
      message_of<SpecError>([] { make_model("vit", "num_heads = 5"); }).find("does not divide"),
      std::string::npos);
  EXPECT_NE(message_of<SpecError>([] {
              make_model("vit_tiny_patch4_32", "image_size = 33");
            }).find("no multiple of the patch side 4"),
            std::string::npos);
  EXPECT_NE(message_of<SpecError>([] {
              make_model("deit_tiny_patch16_224", "embed_dim = 5");
            }).find("embed_dim"),
            std::string::npos);
}

// A key of size n acts as n copies of it.
TEST(Attention, ProportionalBiasCountsAKeyAsOftenAsItsSize) {
  Attention attention(2, 1);
  attention.to(at::kDouble);
  const at::NoGradGuard no_grad;
  // The token (a, b) itself is q and k; v is (a + 2 b, 0).
  attention.qkv->weight.copy_(
      at::tensor({1., 0., 0., 1., 1., 0., 0., 1., 1., 2., 0., 0.}, at::kDouble).view({6, 2}));
  attention.qkv->bias.zero_();
  attention.proj->weight.copy_(at::eye(2, at::kDouble));
  attention.proj->bias.zero_();
  const at::Tensor tokens = at::tensor({1., 0., 0., 1., 1., 1.}, at::kDouble).view({1, 3, 2});
  const at::Tensor copies = tokens.index_select(1, at::tensor({0, 1, 1, 2, 2, 2}, at::kLong));

  ForwardState sized;
  sized.proportional_attention = true;
  sized.token_sizes = at::tensor({1., 2., 3.}, at::kDouble).view({1, 3, 1});
  ForwardState plain;
  plain.token_sizes = sized.token_sizes;  // ignored without proportional attention
  const at::Tensor weighted = attention.forward(tokens, sized);
  const at::Tensor repeated =
      attention.forward(copies, plain).index_select(1, at::tensor({0, 1, 3}, at::kLong));
  EXPECT_LT((weighted - repeated).abs().max().item<double>(), 1e-12);
  EXPECT_GT((weighted - attention.forward(tokens, plain)).abs().max().item<double>(), 0.01);
}

TEST(Attention, HandsOutKeysOnlyOnRequest) {
  Attention attention(6, 2);
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : attention.parameters()) {
    parameter.copy_(at::arange(parameter.numel()).mul(0.3).sin().view_as(parameter));
  }
  const at::Tensor tokens = wavy_images(1, 4).view({2, 4, 6});
  ForwardState state;
  const at::Tensor silent = attention.forward(tokens, state);
  EXPECT_FALSE(state.keys.defined());
  state.want_keys = true;
  EXPECT_TRUE(at::equal(attention.forward(tokens, state), silent));
  const at::Tensor expected =
      at::linear(tokens, attention.qkv->weight.narrow(0, 6, 6), attention.qkv->bias.narrow(0, 6, 6))
          .view({2, 4, 2, 3})
          .transpose(1, 2);
  EXPECT_TRUE(at::allclose(state.keys, expected));
}

/// Logits of a training pass over rows [first, first + count) of a global batch.
at::Tensor train_pass(Model& model, const at::Tensor& images, std::int64_t first,
                      std::int64_t count, std::int64_t step = 11, std::uint64_t seed = 4) {
  const at::NoGradGuard no_grad;
  ForwardState state;
  state.seed = seed;
  state.step = step;
  state.first_position = first;
  state.global_batch = images.size(0);
  return model.forward(images.narrow(0, first, count), state);
}

TEST(DropPath, DependsOnThePositionInTheGlobalBatchAndNotOnItsCut) {
  const auto model = make_model(
      "vit", "depth = 4\nembed_dim = 24\nnum_heads = 2\nimage_size = 16\ndrop_path = 0.5");
  model->to(at::kDouble);
  model->initialize(1);
  model->train();
  const at::Tensor images = wavy_images(8, 16, at::kDouble);
  const at::Tensor whole = train_pass(*model, images, 0, 8);
  const at::Tensor cut =
      at::cat({train_pass(*model, images, 0, 3), train_pass(*model, images, 3, 1),
               train_pass(*model, images, 4, 4)});
  EXPECT_LT((whole - cut).abs().max().item<double>(), 1e-12);
  EXPECT_GT((whole - train_pass(*model, images, 0, 8, 12)).abs().max().item<double>(), 1e-6);
  EXPECT_GT((whole - train_pass(*model, images, 0, 8, 11, 5)).abs().max().item<double>(), 1e-6);
  model->eval();
  const at::Tensor plain = train_pass(*model, images, 0, 8);
  EXPECT_TRUE(at::equal(plain, train_pass(*model, images, 0, 8, 12)));
}

TEST(DropPath, DropsAtItsRateAndScalesWhatStays) {
  const auto model = make_model("vit",
                                "depth = 1\nembed_dim = 8\nnum_heads = 2\nimage_size = 4\n"
                                "drop_path = 0.25\ndrop_path_mode = \"constant\"");
  model->initialize(1);
  model->train();
  const std::int64_t samples = 4000;
  const at::NoGradGuard no_grad;
  ForwardState state;
  TokenStream out = model->blocks()[0]->forward({at::ones({samples, 2, 8}), {}, {}}, state);
  ASSERT_EQ(out.scale.sizes(), (std::vector<std::int64_t>{samples, 1, 1}));
  const at::Tensor kept = out.scale.gt(0);
  const double rate = kept.to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(rate, 0.75, 5 * std::sqrt(0.25 * 0.75 / samples));
  EXPECT_TRUE(at::allclose(out.scale.masked_select(kept), at::full({1}, 1 / 0.75)));
  // Dropped rows are the stream itself.
  const at::Tensor dropped = kept.flatten().logical_not();
  EXPECT_TRUE(at::equal(out.value().index({dropped}), out.base.index({dropped})));
}

TEST(DropPath, RisesLinearlyOverDepth) {
  const auto model = make_model("vit", "depth = 3\nembed_dim = 8\nnum_heads = 2\ndrop_path = 0.4");
  model->initialize(1);
  model->train();
  ForwardState state;
  const at::Tensor x = at::ones({2000, 1, 8});
  const auto blocks = model->blocks();
  EXPECT_FALSE(blocks[0]->forward({x, {}, {}}, state).scale.defined());
  const at::Tensor middle = blocks[1]->forward({x, {}, {}}, state).scale;
  EXPECT_NEAR(middle.max().item<double>(), 1 / 0.8, 1e-6);
  EXPECT_NEAR(blocks[2]->forward({x, {}, {}}, state).scale.max().item<double>(), 1 / 0.6, 1e-6);
}

}  // namespace
}  // namespace ablate
