#include "methods/models/reweight.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/models/channel_support.h"

namespace ablate {
namespace {

using test::golden_images;
using test::golden_vit;
using test::largest_difference;
using test::logits_of;

constexpr const char* kReweightedVit =
    "image_size = 16\npatch_size = 4\nembed_dim = 24\ndepth = 2\nnum_heads = 3";

TEST(Reweight, IsBornAsTheIdentityBitForBit) {
  for (const char* kind : {"dynamic", "static", "head"}) {
    const auto model = test::make_model("vit", kReweightedVit, 5);
    model->initialize(3);
    model->eval();
    const at::Tensor images = test::wavy_images(2, 16), before = logits_of(*model, images);
    Surgeon surgeon(*model);
    surgeon.apply(AttachReweight{1, "v", kind, 8});
    if (std::string(kind) == "dynamic") {
      at::NoGradGuard no_grad;
      model->named_parameters()["blocks.1.attn.reweight_v.fc1.weight"].fill_(0.3);
    }
    EXPECT_TRUE(at::equal(logits_of(*model, images), before)) << kind;
  }
}

TEST(Reweight, OfTheMeanTokenIsWhatItsFormulaSays) {
  ChannelGroup group{"v", ChannelRole::Value, 2, 3, 3};
  const auto module = make_reweight("dynamic", group, 8);
  module->to(at::kDouble);
  const at::NoGradGuard no_grad;
  double j = 0.1;
  for (at::Tensor& parameter : module->parameters()) {
    parameter.copy_((at::arange(parameter.numel(), at::kDouble) + j).sin().view_as(parameter));
    j += 0.7;
  }
  const at::Tensor x = (at::arange(2 * 4 * 6, at::kDouble) * 0.37).cos().view({2, 4, 6});
  ForwardState state;
  const at::Tensor y = module->forward(x, group, state);
  const auto p = module->named_parameters();
  for (int b = 0; b < 2; ++b) {
    for (int c = 0; c < 6; ++c) {
      double gate = p["fc2.bias"][c].item<double>();
      for (int u = 0; u < 8; ++u) {
        double hidden = p["fc1.bias"][u].item<double>();
        for (int i = 0; i < 6; ++i) {
          hidden += p["fc1.weight"][u][i].item<double>() * x[b].mean(0)[i].item<double>();
        }
        gate += p["fc2.weight"][c][u].item<double>() * std::max(hidden, 0.0);
      }
      const double factor = 2.0 / (1.0 + std::exp(-gate));
      for (int n = 0; n < 4; ++n) {
        EXPECT_NEAR(y[b][n][c].item<double>(), x[b][n][c].item<double>() * factor, 1e-12);
      }
    }
  }
}

// Folding multiplies the layer that reads: nothing moves, and no trace is left.
TEST(Reweight, ThatIsConstantFoldsIntoTheProjection) {
  for (const char* kind : {"static", "head"}) {
    const auto model = golden_vit();
    Surgeon surgeon(*model);
    surgeon.apply(AttachReweight{1, "v", kind, 0});
    const at::NoGradGuard no_grad;
    at::Tensor factor = model->named_parameters()["blocks.1.attn.reweight_v.factor"];
    factor.copy_(0.5 + 0.1 * at::arange(factor.numel(), at::kDouble));
    const at::Tensor expected = logits_of(*model, golden_images());
    EXPECT_GT(largest_difference(expected, logits_of(*golden_vit(), golden_images())), 1e-3);
    surgeon.apply(FoldReweight{1, "v"});
    EXPECT_LT(largest_difference(logits_of(*model, golden_images()), expected), 1e-13);
    EXPECT_TRUE(surgeon.edits().empty());
    EXPECT_EQ(test::parameter_count(*model), test::parameter_count(*golden_vit()));
  }
}

}  // namespace
}  // namespace ablate
