#include "datasets/mixing.h"

#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

namespace ablate {
namespace {

TEST(Mixing, TargetGolden) {
  const std::array<std::int64_t, 2> labels{0, 2};
  std::array<float, 6> targets{};
  mixed_targets(labels.data(), 2, 3, 0.1, {0.7, false, {}}, targets.data());
  const std::array<double, 6> expected{0.663333, 0.033333, 0.303333, 0.303333, 0.033333, 0.663333};
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(targets[i], expected[i], 1e-6) << i;
}

TEST(Mixing, TargetsOfEqualLabelsAndOddGroupsSumToOne) {
  const std::array<std::int64_t, 3> labels{1, 3, 1};
  std::array<float, 12> targets{};
  mixed_targets(labels.data(), 3, 4, 0.2, {0.3, true, {}}, targets.data());
  for (std::size_t i = 0; i < 3; ++i) {
    const auto row = targets.begin() + static_cast<std::ptrdiff_t>(4 * i);
    EXPECT_NEAR(std::accumulate(row, row + 4, 0.0), 1, 1e-6);
    EXPECT_NEAR(row[labels[i]], 0.85, 1e-6);  // its partner has the same label
  }
}

TEST(Mixing, CutmixBoxGolden) {
  const MixPlan corner = cutmix_plan(0.75, 0, 0, 224, 224);
  EXPECT_EQ(corner.box, (Box{0, 0, 56, 56}));
  EXPECT_DOUBLE_EQ(corner.lambda, 0.9375);
  const MixPlan middle = cutmix_plan(0.75, 112, 100, 224, 224);
  EXPECT_EQ(middle.box, (Box{44, 56, 112, 112}));
  EXPECT_DOUBLE_EQ(middle.lambda, 0.75);
  EXPECT_EQ(cutmix_plan(1, 5, 5, 32, 32).lambda, 1);
}

std::vector<float> ramp(int group, int size) {
  std::vector<float> images(static_cast<std::size_t>(group * size));
  std::iota(images.begin(), images.end(), 0.0F);
  return images;
}

TEST(Mixing, MixupBlendsWithTheMirroredSample) {
  constexpr int kGroup = 5, kSize = 2 * 3 * 4;
  const auto before = ramp(kGroup, kSize);
  auto images = before;
  apply_mix(images.data(), kGroup, 2, 3, 4, {0.7, false, {}});
  for (int i = 0; i < kGroup; ++i) {
    for (int k = 0; k < kSize; ++k) {
      const auto own = before[static_cast<std::size_t>(i * kSize + k)];
      const auto other = before[static_cast<std::size_t>((kGroup - 1 - i) * kSize + k)];
      const auto mixed = images[static_cast<std::size_t>(i * kSize + k)];
      EXPECT_NEAR(mixed, 0.7 * own + 0.3 * other, 1e-4);
      if (i == 2) {
        EXPECT_EQ(mixed, own);
      }
    }
  }
}

TEST(Mixing, CutmixReplacesTheBoxOnly) {
  constexpr int kGroup = 4, kC = 2, kH = 5, kW = 6, kSize = kC * kH * kW;
  const auto before = ramp(kGroup, kSize);
  auto images = before;
  const Box box{1, 2, 3, 2};
  apply_mix(images.data(), kGroup, kC, kH, kW, {0.8, true, box});
  for (int i = 0; i < kGroup; ++i) {
    for (int k = 0; k < kSize; ++k) {
      const int x = k % kW, y = k / kW % kH;
      const bool inside = x >= 1 && x < 4 && y >= 2 && y < 4;
      const int source = inside ? kGroup - 1 - i : i;
      EXPECT_EQ(images[static_cast<std::size_t>(i * kSize + k)],
                before[static_cast<std::size_t>(source * kSize + k)]);
    }
  }
}

TEST(Mixing, PlansFollowTheirSettings) {
  const Mixing both{0.8, 1.0, 1.0, 0.5};
  double cutmix = 0, mixup_lambda = 0, mixup_square = 0;
  constexpr int kDraws = 20000;
  for (std::uint64_t group = 0; group < kDraws; ++group) {
    const MixPlan plan = draw_mix(both, 1, group, 7, 32, 32);
    ASSERT_GE(plan.lambda, 0);
    ASSERT_LE(plan.lambda, 1);
    cutmix += plan.cutmix;
    if (plan.cutmix) {
      ASSERT_DOUBLE_EQ(plan.lambda, 1 - plan.box.width * plan.box.height / 1024.0);
    } else {
      mixup_lambda += plan.lambda;
      mixup_square += plan.lambda * plan.lambda;
    }
  }
  const double mixup = kDraws - cutmix;
  EXPECT_NEAR(cutmix / kDraws, 0.5, 0.015);
  EXPECT_NEAR(mixup_lambda / mixup, 0.5, 0.015);
  EXPECT_NEAR(mixup_square / mixup, 0.25 + 1 / (4 * 2.6), 0.015);  // variance of Beta(0.8, 0.8)
}

TEST(Mixing, ProbabilityAndSwitches) {
  int mixed = 0;
  for (std::uint64_t group = 0; group < 4000; ++group) {
    mixed += draw_mix({0.8, 0, 0.3, 0.5}, 1, group, 0, 32, 32).lambda < 1;
    EXPECT_FALSE(draw_mix({0.8, 0, 1, 1}, 1, group, 0, 32, 32).cutmix);
    EXPECT_TRUE(draw_mix({0, 1, 1, 0}, 1, group, 0, 32, 32).cutmix);
  }
  EXPECT_NEAR(mixed, 1200, 116);  // four standard deviations
  EXPECT_EQ(draw_mix({}, 1, 3, 0, 32, 32).lambda, 1);
  EXPECT_FALSE(Mixing{}.enabled());
}

TEST(Mixing, DependsOnSeedGroupAndStepAlone) {
  const Mixing settings{0.8, 0, 1, 0.5};
  const auto lambda = [&](std::uint64_t seed, std::uint64_t group, std::uint32_t step) {
    return draw_mix(settings, seed, group, step, 32, 32).lambda;
  };
  EXPECT_EQ(lambda(1, 2, 3), lambda(1, 2, 3));
  EXPECT_NE(lambda(1, 2, 3), lambda(2, 2, 3));
  EXPECT_NE(lambda(1, 2, 3), lambda(1, 3, 3));
  EXPECT_NE(lambda(1, 2, 3), lambda(1, 2, 4));
  EXPECT_NE(lambda(1, 2, 3), lambda(1, 3, 2));
}

}  // namespace
}  // namespace ablate
