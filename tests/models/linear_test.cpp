#include "methods/models/linear.h"

#include <gtest/gtest.h>

#include "tests/support/models.h"

namespace ablate {
namespace {

at::Tensor waves(at::IntArrayRef shape, double frequency) {
  std::int64_t count = 1;
  for (const std::int64_t side : shape) count *= side;
  return at::arange(count, at::kDouble).mul(frequency).sin().view(shape);
}

/// Output and gradients of a layer for the loss sum(y cos(k)).
struct LayerPass {
  at::Tensor y, dx, dweight, dbias;
};

template <typename Layer>
LayerPass pass(const Layer& layer, at::IntArrayRef x_shape, std::int64_t out, at::ScalarType type) {
  const std::int64_t in = x_shape.back();
  const auto leaf = [&](const at::Tensor& t) { return t.to(type).detach().requires_grad_(); };
  const at::Tensor x = leaf(waves(x_shape, 0.37)), weight = leaf(waves({out, in}, 1.3)),
                   bias = leaf(waves({out}, 0.7));
  const at::Tensor y = layer(x, weight, bias);
  const at::Tensor upstream = at::arange(y.numel(), at::kDouble).cos().view(y.sizes());
  // Of another layout than y, as the backward of a transpose hands it on.
  y.backward(upstream.to(type).transpose(0, -1).contiguous().transpose(0, -1));
  return {y.detach(), x.grad(), weight.grad(), bias.grad()};
}

void expect_close(const at::Tensor& found, const at::Tensor& expected, const char* what) {
  ASSERT_EQ(found.sizes(), expected.sizes()) << what;
  const double error = ((found.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
  EXPECT_LT(error, 1e-6) << what;
}

// Against at::linear in double precision, which defines it; wide and narrow layers.
TEST(OneDnnLinear, IsALinearLayerWithItsGradients) {
  for (const std::int64_t out : {5, 64, 7}) {
    for (const std::vector<std::int64_t>& shape :
         {std::vector<std::int64_t>{4, 17, 24}, {3, 2, 5, 24}, {9, 24}, {1, 1, 64}}) {
      SCOPED_TRACE(cat(join(shape, "x"), " -> ", out));
      const LayerPass fast = pass(onednn_linear, shape, out, at::kFloat);
      const LayerPass plain = pass([](const at::Tensor& x, const at::Tensor& w,
                                      const at::Tensor& b) { return at::linear(x, w, b); },
                                   shape, out, at::kDouble);
      expect_close(fast.y, plain.y, "output");
      expect_close(fast.dx, plain.dx, "gradient of the input");
      expect_close(fast.dweight, plain.dweight, "gradient of the weight");
      expect_close(fast.dbias, plain.dbias, "gradient of the bias");
    }
  }
}

TEST(OneDnnLinear, GivesTheSameBitsAgain) {
  const LayerPass first = pass(onednn_linear, {8, 65, 48}, 96, at::kFloat);
  const LayerPass again = pass(onednn_linear, {8, 65, 48}, 96, at::kFloat);
  EXPECT_TRUE(at::equal(first.y, again.y));
  EXPECT_TRUE(at::equal(first.dx, again.dx));
  EXPECT_TRUE(at::equal(first.dweight, again.dweight));
}

TEST(OneDnnLinear, ComputesOnlyTheGradientsThatAreAskedFor) {
  const at::Tensor weight = waves({6, 4}, 1.3).to(at::kFloat).requires_grad_();
  const at::Tensor x = waves({3, 4}, 0.3).to(at::kFloat), bias = at::zeros({6});
  onednn_linear(x, weight, bias).sum().backward();
  EXPECT_TRUE(weight.grad().defined());
  EXPECT_FALSE(x.grad().defined());
  EXPECT_FALSE(bias.grad().defined());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(onednn_linear(x, weight, bias).requires_grad());
}

TEST(Linear, IsAtLinearInOtherTypes) {
  const at::Tensor x = waves({3, 5, 4}, 0.3), weight = waves({6, 4}, 1.3), bias = waves({6}, 0.7);
  for (const auto type : {at::kDouble, at::kBFloat16}) {
    const at::Tensor a = x.to(type), b = weight.to(type), c = bias.to(type);
    EXPECT_TRUE(at::equal(linear(a, b, c), at::linear(a, b, c)));
  }
  const at::Tensor single = linear(x.to(at::kFloat), weight.to(at::kFloat), bias.to(at::kFloat));
  EXPECT_TRUE(at::allclose(single.to(at::kDouble), at::linear(x, weight, bias), 1e-5, 1e-6));
  EXPECT_EQ(linear(at::zeros({0, 4}), weight.to(at::kFloat), bias.to(at::kFloat)).sizes(),
            (std::vector<std::int64_t>{0, 6}));
}

}  // namespace
}  // namespace ablate
