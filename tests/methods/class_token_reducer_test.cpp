#include <gtest/gtest.h>

#include "tests/methods/tome_support.h"

namespace ablate {
namespace {

using test::golden_images;
using test::golden_vit;

at::Tensor gradients_of(Model& model, const at::Tensor& images) {
  ForwardState state;
  model.forward(images, state).pow(2).sum().backward();
  std::vector<at::Tensor> flat;
  for (const at::Tensor& parameter : model.parameters()) flat.push_back(parameter.grad().flatten());
  return at::cat(flat);
}

void keep_class_token_in_the_last_block(Model& model) {
  Surgeon surgeon(model);
  surgeon.apply(InsertReducer{static_cast<int>(model.blocks().size()) - 1, "class_token", {}});
}

// Heads read the class token alone, so what the last MLP makes of others is lost anyway.
TEST(ClassTokenReducer, IsExactInTheLastBlock) {
  const auto whole = golden_vit(), reduced = golden_vit();
  keep_class_token_in_the_last_block(*reduced);
  EXPECT_TRUE(at::allclose(test::logits_of(*reduced, golden_images()),
                           test::logits_of(*whole, golden_images()), 1e-12, 1e-12));
  EXPECT_TRUE(at::allclose(gradients_of(*reduced, golden_images()),
                           gradients_of(*whole, golden_images()), 1e-10, 1e-12));
  ForwardState state;
  state.taps["blocks.2.mlp"];
  reduced->forward(golden_images(), state);
  EXPECT_EQ(state.taps["blocks.2.mlp"].size(1), 1);
}

TEST(ClassTokenReducer, KeepsADistillationTokenToo) {
  const auto make = [] {
    auto model = test::make_model(
        "vit", "image_size = 16\nembed_dim = 24\ndepth = 2\nnum_heads = 2\ndistilled = true");
    model->initialize(1);
    model->eval();
    return model;
  };
  const auto whole = make(), reduced = make();
  keep_class_token_in_the_last_block(*reduced);
  const at::Tensor images = test::wavy_images(2, 16);
  EXPECT_TRUE(
      at::allclose(test::logits_of(*reduced, images), test::logits_of(*whole, images), 1e-5, 1e-6));
}

}  // namespace
}  // namespace ablate
