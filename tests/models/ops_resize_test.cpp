#include "methods/models/ops_resize.h"

#include <gtest/gtest.h>

#include "tests/support/gpu.h"
#include "tests/support/models.h"

namespace ablate {
namespace {

using test::largest_difference;

at::Tensor map_of_size(std::int64_t height, std::int64_t width, at::Device device = at::kCPU) {
  return at::arange(2 * 3 * height * width, at::kDouble)
      .mul(0.7)
      .sin()
      .view({2, 3, height, width})
      .to(device);
}

struct SizeCase {
  std::int64_t height, width, new_height, new_width;
};

/// Larger, smaller, both at once, odd, and more cells than places.
constexpr SizeCase kSizes[] = {{4, 6, 16, 24}, {16, 12, 8, 6}, {7, 5, 11, 3}, {32, 32, 6, 6},
                               {2, 3, 6, 6},   {1, 1, 5, 4},   {9, 9, 1, 1}};

/// Values and gradients of both ways to compute one thing.
template <typename Ours, typename Theirs>
void expect_same(const at::Tensor& map, const Ours& ours, const Theirs& theirs) {
  const at::Tensor a = map.clone().set_requires_grad(true), b = map.clone().set_requires_grad(true);
  const at::Tensor y = ours(a), truth = theirs(b);
  ASSERT_EQ(y.sizes(), truth.sizes());
  EXPECT_LT(largest_difference(y.detach(), truth.detach()), 1e-12);
  const at::Tensor upstream = at::arange(y.numel(), map.options()).mul(0.3).cos().view_as(y);
  (y * upstream).sum().backward();
  (truth * upstream).sum().backward();
  EXPECT_LT(largest_difference(a.grad(), b.grad()), 1e-12);
}

TEST(ResizeByProducts, IsBilinearInterpolation) {
  for (const auto& [h, w, new_h, new_w] : kSizes) {
    const at::Tensor map = map_of_size(h, w);
    expect_same(
        map,
        [&](const at::Tensor& x) {
          return ops::weigh_places(x, ops::bilinear_weights(h, new_h, x.options()),
                                   ops::bilinear_weights(w, new_w, x.options()));
        },
        [&](const at::Tensor& x) {
          return at::upsample_bilinear2d(x, {new_h, new_w}, false);
        });
  }
}

TEST(ResizeByProducts, IsAdaptivePooling) {
  for (const auto& [h, w, new_h, new_w] : kSizes) {
    const at::Tensor map = map_of_size(h, w);
    expect_same(
        map,
        [&](const at::Tensor& x) {
          return ops::weigh_places(x, ops::average_weights(h, new_h, x.options()),
                                   ops::average_weights(w, new_w, x.options()));
        },
        [&](const at::Tensor& x) {
          return at::adaptive_avg_pool2d(x, {new_h, new_w});
        });
  }
}

TEST(Resize, GivesNumbersWorkedOutByHand) {
  const at::Tensor square = at::arange(4, at::kDouble).view({1, 1, 2, 2});
  const at::Tensor twice = ops::resize_bilinear(square, 4, 4);
  EXPECT_TRUE(at::equal(twice[0][0][0], at::tensor({0.0, 0.25, 0.75, 1.0}, at::kDouble)));
  const at::Tensor sixteen = at::arange(16, at::kDouble).view({1, 1, 4, 4});
  const at::Tensor expected = at::tensor({2.5, 4.5, 10.5, 12.5}, at::kDouble);
  EXPECT_TRUE(at::equal(ops::resize_bilinear(sixteen, 2, 2).flatten(), expected));
  EXPECT_TRUE(at::equal(ops::average_to(sixteen, 2, 2).flatten(), expected));
  EXPECT_TRUE(at::equal(ops::halve_by_max(sixteen).flatten(),
                        at::tensor({5.0, 7.0, 13.0, 15.0}, at::kDouble)));
}

TEST(ResizeGpu, GivesValuesAndGradientsOfTheCpu) {
  if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  for (const auto& [h, w, new_h, new_w] : kSizes) {
    const auto compare = [&](const auto& operation) {
      at::Tensor results[2], gradients[2];
      for (const int i : {0, 1}) {
        const at::Tensor x =
            map_of_size(h, w, i == 0 ? at::kCPU : at::kCUDA).set_requires_grad(true);
        const at::Tensor y = operation(x);
        (y * y.detach().cos()).sum().backward();
        results[i] = y.detach().cpu();
        gradients[i] = x.grad().cpu();
      }
      EXPECT_LT(largest_difference(results[0], results[1]), 1e-12);
      EXPECT_LT(largest_difference(gradients[0], gradients[1]), 1e-12);
    };
    compare([&](const at::Tensor& x) { return ops::resize_bilinear(x, new_h, new_w); });
    compare([&](const at::Tensor& x) { return ops::average_to(x, new_h, new_w); });
    if (h > 1 && w > 1) compare([](const at::Tensor& x) { return ops::halve_by_max(x); });
  }
}

}  // namespace
}  // namespace ablate
