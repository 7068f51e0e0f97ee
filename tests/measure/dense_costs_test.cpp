#include <gtest/gtest.h>

#include "methods/models/ops_resize.h"
#include "runner/measure/mac_counter.h"
#include "tests/support/models.h"

namespace ablate {
namespace {

constexpr std::int64_t kAdeClasses = 150;

/// Counted layer by layer at 512 pixels: 1024 patches of 16, maps of 32 x 32.
std::int64_t deit_small_macs() {
  constexpr std::int64_t kPatches = 1024, kTokens = 1025, kWidth = 384;
  return kPatches * kWidth * 768 +
         12 * (12 * kTokens * kWidth * kWidth + 2 * kTokens * kTokens * kWidth);
}

TEST(DenseCosts, AreThoseOfTheLayers) {
  constexpr std::int64_t kPlaces = 1024, kWidth = 384;
  const auto costs = [](std::string_view name, std::string_view settings) {
    const auto model = test::make_model(name, settings, 150);
    const at::NoGradGuard no_grad;
    for (at::Tensor& parameter : model->parameters()) parameter.zero_();
    return measure_cost(*model).macs;
  };
  const std::int64_t upernet = (1 + 4 + 9 + 36) * kWidth * 512 +
                               kPlaces * (kWidth + 2048) * 512 * 9 + 3 * kPlaces * kWidth * 512 +
                               3 * kPlaces * 512 * 512 * 9 + kPlaces * 2048 * 512 * 9 +
                               kPlaces * 512 * kAdeClasses;
  EXPECT_EQ(costs("upernet_deit_small_patch16_224", ""), deit_small_macs() + upernet);
  EXPECT_EQ(costs("linear_deit_small_patch16_224", ""),
            deit_small_macs() + kPlaces * kWidth * kAdeClasses);
  // Two blocks on 1024 + 150 tokens between projections.
  constexpr std::int64_t kAll = kPlaces + kAdeClasses;
  const std::int64_t mask = kPlaces * kWidth * kWidth +
                            2 * (12 * kAll * kWidth * kWidth + 2 * kAll * kAll * kWidth) +
                            kAll * kWidth * kWidth + kPlaces * kWidth * kAdeClasses;
  EXPECT_EQ(costs("segmenter_deit_small_patch16_224", ""), deit_small_macs() + mask);
}

// Interpolation and pooling are left out of the literature's counts.
TEST(DenseCosts, LeaveOutResizing) {
  const at::Tensor map = at::ones({2, 3, 6, 6});
  const MacCounter counter;
  ops::weigh_places(map, ops::bilinear_weights(6, 12, map.options()),
                    ops::bilinear_weights(6, 12, map.options()));
  ops::average_to(map, 2, 2);
  EXPECT_EQ(counter.macs(), 0);
}

}  // namespace
}  // namespace ablate
