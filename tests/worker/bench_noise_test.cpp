#include "runner/worker/bench_noise.h"

#include <gtest/gtest.h>

namespace ablate {
namespace {

TEST(BenchNoise, HasUnitVarianceAndNoPatternAlongImagesRowsAndPixels) {
  constexpr std::int64_t kCount = 3 * 224 * 224 * 2, kHalf = kCount / 2;
  const at::Tensor x = bench_noise(kCount);
  // Five standard errors of a mean of so many products.
  const double bound = 5 / std::sqrt(double{kHalf});
  EXPECT_LT(std::abs(x.mean().item<double>()), bound);
  EXPECT_NEAR(x.square().mean().item<double>(), 1, bound);
  for (const std::int64_t lag : {1, 2, 16, 32, 224, 224 * 16, 224 * 224, 3 * 224 * 224}) {
    const at::Tensor products = x.narrow(0, 0, kHalf) * x.narrow(0, lag, kHalf);
    EXPECT_LT(std::abs(products.mean().item<double>()), bound) << lag;
  }
}

}  // namespace
}  // namespace ablate
