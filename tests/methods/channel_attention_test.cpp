#include <cmath>

#include <gtest/gtest.h>

#include "methods/models/layer_maps.h"
#include "runner/core/params.h"
#include "tests/core/expect_error.h"
#include "tests/methods/mrla_support.h"

// Channel attention on residual branches: SE, ECA, CBAM.

namespace ablate {
namespace {

using test::largest_difference;
using test::make_model;

struct Attended {
  std::shared_ptr<LayerAttention> module;
  at::Tensor y, scaled;
  at::Tensor part(const std::string& name) const {
    return module->named_parameters()[name].detach();
  }
};

/// A module of a kind at a branch of 8 channels, in double and evaluation mode.
Attended attend(const char* kind, const char* settings) {
  const Value table = parse_toml(settings, "test");
  Params params(table, "test");
  const auto modules =
      Registry<LayerAttentionInfo>::get(kind).make(params, {{.name = "b", .channels = 8}});
  Attended result{modules.front(), test::wavy_maps(1, 3, 8, 9)[0], {}};
  result.module->initialize(2, "b");
  result.module->to(at::kDouble);
  result.module->eval();
  ForwardState state;
  result.scaled = result.module->forward(result.y, {}, state).detach();
  return result;
}

at::Tensor fully_connected(const Attended& a, const at::Tensor& x) {
  const at::Tensor hidden = at::linear(x, a.part("fc1.weight"), a.part("fc1.bias")).relu();
  return at::linear(hidden, a.part("fc2.weight"), a.part("fc2.bias"));
}
at::Tensor on_channels(const at::Tensor& factors) { return factors.unsqueeze(2).unsqueeze(3); }

TEST(SqueezeExcitation, ScalesChannelsByAFunctionOfTheirMeans) {
  const Attended a = attend("se", "reduction = 4");
  EXPECT_EQ(a.part("fc1.weight").size(0), 2);
  const at::Tensor factors = fully_connected(a, a.y.mean({2, 3})).sigmoid();
  EXPECT_LT(largest_difference(a.scaled, a.y * on_channels(factors)), 1e-14);
}

TEST(EfficientChannelAttention, ConvolvesTheMeans) {
  const Attended a = attend("eca", "");
  const at::Tensor kernel = a.part("kernel").flatten(), means = a.y.mean({2, 3});
  ASSERT_EQ(kernel.numel(), 3);
  const at::Tensor padded = at::constant_pad_nd(means, {1, 1});
  at::Tensor logits = at::zeros_like(means);
  for (std::int64_t i = 0; i < 3; ++i) logits += kernel[i] * padded.narrow(1, i, 8);
  EXPECT_LT(largest_difference(a.scaled, a.y * on_channels(logits.sigmoid())), 1e-14);
}

TEST(ConvBlockAttention, ScalesChannelsThenPixels) {
  const Attended a = attend("cbam", "reduction = 4");
  const at::Tensor means = a.y.mean({2, 3}), maxima = std::get<0>(a.y.flatten(2).max(2));
  const at::Tensor channels =
      a.y * on_channels((fully_connected(a, means) + fully_connected(a, maxima)).sigmoid());
  const at::Tensor summary = at::stack({std::get<0>(channels.max(1)), channels.mean(1)}, 1);
  const at::Tensor logits = at::conv2d(summary, a.part("spatial.weight"), {}, 1, 3);
  // A BatchNorm of fresh running statistics divides by sqrt(1 + eps).
  const at::Tensor expected = channels * (logits / std::sqrt(1.0 + 1e-5)).sigmoid();
  EXPECT_LT(largest_difference(a.scaled, expected), 1e-14);
}

// The branch is scaled before it is added: with factors of 1 the model is the plain one.
TEST(ChannelAttention, StandsBeforeTheAddition) {
  const auto model = make_model("resnet20", "image_size = 16", 4);
  const auto plain = make_model("resnet20", "image_size = 16", 4);
  model->initialize(1);
  plain->initialize(1);
  test::apply_methods(*model, {"name = 'se'"});
  {
    const at::NoGradGuard no_grad;
    for (auto& item : model->named_parameters()) {
      if (item.key().ends_with("fc2.weight")) item.value().zero_();
      if (item.key().ends_with("fc2.bias")) item.value().fill_(40.0);  // sigmoid = 1
    }
  }
  const at::Tensor images = test::wavy_images(4, 16);
  EXPECT_LT(largest_difference(test::logits_of(*model, images), test::logits_of(*plain, images)),
            1e-5);
}

// 2 C^2 / 16 + C / 16 + C a block; ECA-Net's kernels; CBAM adds 2 x 49 + 2 a block.
TEST(ChannelAttention, HasThePublishedSizes) {
  struct Row {
    const char* method;
    std::int64_t parameters;
  };
  for (const Row& row : {Row{"se", 28'088'024}, Row{"eca", 25'557'118}, Row{"cbam", 28'089'624}}) {
    const auto model = make_model("resnet50", "", 1000);
    test::apply_methods(*model, {cat("name = '", row.method, "'")});
    EXPECT_EQ(test::parameter_count(*model), row.parameters) << row.method;
  }
}

TEST(ChannelAttention, IsRefusedWhereThereIsNoSuchPlace) {
  const auto vit = make_model("vit", "image_size = 8\ndepth = 1\nembed_dim = 16\nnum_heads = 2", 4);
  vit->initialize(1);
  Surgeon surgeon(*vit);
  const Edit edit = AttachLayerAttention{0, 1, "se", Value::Table{}};
  EXPECT_NE(test::message_of<Error>([&] { surgeon.apply(edit); }).find("no place for channel"),
            std::string::npos);
  EXPECT_THROW(check_methods(Registry<ModelInfo>::get("vit"),
                             {test::method_component("name = 'se'")}, "test"),
               SpecError);
  const auto model = make_model("resnet20", "image_size = 16", 4);
  const std::string message = test::message_of<SpecError>(
      [&] { test::apply_methods(*model, {"name = 'se'\nreduction = 100"}); });
  EXPECT_NE(message.find("leaves nothing"), std::string::npos) << message;
}

}  // namespace
}  // namespace ablate
