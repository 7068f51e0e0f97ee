#include <map>

#include <gtest/gtest.h>

#include "methods/method_stack.h"
#include "methods/models/fold.h"
#include "methods/models/weights_io.h"
#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/method_context.h"
#include "tests/support/models.h"

// Methods on hierarchical transformers and on linear attention.

namespace ablate {
namespace {

using test::logits_of;
using test::make_model;
using test::message_of;
using test::method_component;
using test::MethodContext;
using test::wavy_images;

class StagedModels : public testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<Model> model() const {
    std::string settings(Registry<ModelInfo>::get(GetParam()).example);
    // A class token that enters with the last attention sees nothing without it.
    if (GetParam() == "pvt") settings += "class_token = false\n";
    auto made = make_model(GetParam(), settings, 4);
    made->initialize(1);
    made->eval();
    return made;
  }
  static std::string nose(const std::string& settings) {
    return cat("name = 'nose'\ndirect = true\n", settings);
  }
};

TEST_P(StagedModels, LoseAttentionThatNoseRemovesAndItsCost) {
  const auto net = model();
  const std::int64_t before = measure_cost(*net).macs;
  std::int64_t branch = 0;  // of the last block's attention alone
  {
    ForwardState state;
    TokenMixer& mixer = *net->blocks().back()->mixer();
    state.taps[net->blocks().back()->block_name() + ".attn"];
    const at::NoGradGuard no_grad;
    net->forward(wavy_images(1, net->image_size()), state);
    const at::Tensor tokens = state.taps.begin()->second;
    ForwardState alone;
    const MacCounter counter;
    mixer.forward(tokens, alone);
    branch = counter.macs();
  }
  MethodContext context(*net);
  context.length = 10;
  const auto last = static_cast<std::int64_t>(net->blocks().size()) - 1;
  MethodStack stack({method_component(nose(cat("layers = [", last, "]")))});
  stack.apply(context);
  stack.finalize(context.surgeon());
  EXPECT_EQ(net->blocks().back()->mixer(), nullptr);
  EXPECT_EQ(measure_cost(*net).macs, before - branch);

  // Another one with the same edits and weights is the same.
  const auto twin = model();
  Surgeon surgeon(*twin);
  for (const Edit& edit : context.surgeon().edits()) surgeon.apply(edit);
  const NamedTensors from = named_tensors(*net), to = named_tensors(*twin);
  ASSERT_EQ(from.size(), to.size());
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < from.size(); ++i) {
    EXPECT_EQ(from[i].first, to[i].first);
    at::Tensor(to[i].second).copy_(from[i].second);
  }
  const at::Tensor images = wavy_images(2, net->image_size());
  EXPECT_TRUE(at::equal(logits_of(*net, images), logits_of(*twin, images)));
}

TEST_P(StagedModels, AreSearchedByTheEntropyOfTheirLogits) {
  const auto net = model();
  MethodContext context(*net);
  context.length = 10;
  context.batches = {{wavy_images(16, net->image_size()), at::ones({16})}};
  MethodStack stack({method_component(nose("remove = 1"))});
  stack.apply(context);
  std::int64_t removed = 0;
  for (const Block* block : net->blocks()) removed += block->mixer() == nullptr;
  EXPECT_EQ(removed, 1);
}

TEST_P(StagedModels, SayWhyTokensCannotBeMerged) {
  const std::string message = message_of<SpecError>([] {
    check_methods(Registry<ModelInfo>::get(GetParam()), {method_component("name = 'tome'")},
                  "variant x");
  });
  EXPECT_NE(message.find("\"token reducer\""), std::string::npos) << message;
  EXPECT_NE(message.find(GetParam() == "flatten_vit" ? "no logits" : "whole map"),
            std::string::npos)
      << message;
}

// A doubled stream passes the layers between stages changed.
TEST_P(StagedModels, FoldOnlyWhereOneStreamRunsThrough) {
  const auto net = model();
  Surgeon surgeon(*net);
  surgeon.apply(SetGains{0, 2.0, 0.0});
  surgeon.apply(RemoveMixer{0});
  const at::Tensor images = wavy_images(2, net->image_size());
  const at::Tensor before = logits_of(*net, images);
  if (net->one_stream()) {
    EXPECT_EQ(fold_doublings(*net).scale, 2.0);
    EXPECT_LT(test::largest_difference(logits_of(*net, images), before), 1e-5);
  } else {
    EXPECT_NE(message_of<Error>([&] { fold_doublings(*net); }).find("between stages"),
              std::string::npos);
    EXPECT_TRUE(at::equal(logits_of(*net, images), before));
  }
}

INSTANTIATE_TEST_SUITE_P(Families, StagedModels,
                         testing::Values("swin", "pvt", "cswin", "flatten_vit"),
                         [](const auto& name) { return name.param; });

TEST(StagedShapes, AreRefusedWithTheReason) {
  const auto message = [](const char* model, const char* settings) {
    return message_of<SpecError>([&] { make_model(model, settings); });
  };
  EXPECT_NE(message("swin", "embed_dims = [16, 32]\ndepths = [1]").find("2 widths"),
            std::string::npos);
  EXPECT_NE(message("swin", "attention = 'LXS'").find("other letters than L and S"),
            std::string::npos);
  EXPECT_NE(message("swin", "num_heads = [2, 4, 7]").find("does not divide the width 256"),
            std::string::npos);
  EXPECT_NE(message("swin_tiny_patch4_window7_224", "image_size = 200").find("no multiple of 32"),
            std::string::npos);
  EXPECT_NE(message("flatten_pvt_tiny", "dwc_kernel = 4").find("even"), std::string::npos);
  EXPECT_NE(message("pvt", "reductions = [3, 4, 2, 1]").find("does not divide its map"),
            std::string::npos);
  EXPECT_NE(message("swin_tiny_patch4_window7_224", "focusing_factor = 3").find("focusing_factor"),
            std::string::npos);
}

// The rungs of the authors' ladder: plain linear attention, the focusing map, the convolution.
TEST(StagedShapes, IngredientsOfFocusedAttentionCanBeLeftOut) {
  const std::string bare = "dwc_kernel = 0\npositional_encoding = false\n";
  const auto whole = make_model("flatten_deit_tiny_patch16_224", "", 1000);
  const auto plain = make_model("flatten_deit_tiny_patch16_224", bare, 1000);
  // 5.7 M as softmax DeiT-T, but for a scale of each channel.
  EXPECT_EQ(test::parameter_count(*plain), 5'717'416 + 12 * 192);
  EXPECT_EQ(test::parameter_count(*whole), 6'193'576);
  const auto softly = make_model("flatten_vit", bare + "focusing_factor = 1\nimage_size = 16"),
             focused = make_model("flatten_vit", bare + "image_size = 16");
  softly->initialize(1);
  focused->initialize(1);
  const at::Tensor images = wavy_images(1, 16);
  EXPECT_GT(test::largest_difference(logits_of(*softly, images), logits_of(*focused, images)),
            1e-6);
}

}  // namespace
}  // namespace ablate
