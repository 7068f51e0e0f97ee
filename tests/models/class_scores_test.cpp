#include <gtest/gtest.h>

#include "tests/support/gpu.h"
#include "tests/support/models.h"

#if ABLATE_HAS_CUDA

#include "methods/models/fused/context.h"

namespace ablate {
namespace {

// Rounded scores of two classes tie now and then, and a tie counts as an error.
TEST(ClassScoresGpu, AreFloatProductsOfRoundedFactors) {
  if (!test::has_gpu()) GTEST_SKIP() << "no CUDA device";
  const at::Device gpu(at::kCUDA, 0);
  const auto model = test::make_model(
      "vit", "image_size = 32\npatch_size = 8\nembed_dim = 128\nnum_heads = 2\ndepth = 1\n", 50);
  model->initialize(3);
  model->eval();
  model->to(gpu);
  const at::Tensor images = test::wavy_images(7, 32).to(gpu);
  const at::NoGradGuard no_grad;
  FusedContext context(gpu);
  context.bind_for_inference(*model);
  ForwardState first, second;
  first.fused = second.fused = &context;
  const at::Tensor scores = model->forward(images, first);
  const at::Tensor features = model->forward_features(images, second);
  ASSERT_EQ(scores.scalar_type(), at::kFloat);
  ASSERT_EQ(features.scalar_type(), at::kBFloat16);
  const auto parameters = model->named_parameters();
  const at::Tensor weight = parameters["head.weight"].to(at::kBFloat16).to(at::kDouble);
  const at::Tensor expected =
      at::linear(features.to(at::kDouble), weight, parameters["head.bias"].to(at::kDouble));
  EXPECT_LT((scores.to(at::kDouble) - expected).abs().max().item<double>(),
            1e-5 * expected.abs().max().item<double>());
}

}  // namespace
}  // namespace ablate

#endif
