#include "datasets/randaugment.h"

#include <array>
#include <cmath>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/transforms/image_fixtures.h"

namespace ablate {
namespace {

constexpr std::string_view kPolicy = "rand-m9-mstd0.5-inc1";

TEST(RandAugment, ReadsTheGrammar) {
  const RandAugment usual = parse_randaugment(kPolicy);
  EXPECT_EQ(usual.magnitude, 9);
  EXPECT_EQ(usual.magnitude_std, 0.5);
  EXPECT_EQ(usual.layers, 2);
  EXPECT_EQ(usual.probability, 0.5);
  EXPECT_TRUE(usual.increasing);
  const RandAugment other = parse_randaugment("rand-n3-p0.7-mmax8-m4.5");
  EXPECT_EQ(other.layers, 3);
  EXPECT_EQ(other.probability, 0.7);
  EXPECT_EQ(other.magnitude_max, 8);
  EXPECT_EQ(other.magnitude, 4.5);
  EXPECT_FALSE(other.increasing);
  EXPECT_EQ(parse_randaugment("rand").magnitude, 10);
}

TEST(RandAugment, RefusesBadPoliciesAndSaysWhatItTakes) {
  for (const char* text : {"", "augmix-m3", "rand-", "rand-m", "rand-m11", "rand-m9x", "rand-q3",
                           "rand-n0", "rand-n2.5", "rand-p1.5", "rand-mstd-1", "rand-m9-"}) {
    try {
      parse_randaugment(text);
      ADD_FAILURE() << "accepted " << text;
    } catch (const SpecError& error) {
      const std::string what = error.what();
      EXPECT_NE(what.find("\"" + std::string(text) + "\""), std::string::npos) << what;
      EXPECT_NE(what.find("-mstd<0..10>"), std::string::npos) << what;
    }
  }
}

TEST(RandAugment, SaysThatOtherChoicesOfOperationsAreNotOffered) {
  for (const char* text : {"rand-m9-t3a", "rand-tweights-m9", "rand-m9-mstd0.5-t"}) {
    const std::string what = test::message_of<SpecError>([&] { parse_randaugment(text); });
    EXPECT_NE(what.find("choice"), std::string::npos) << what;
    EXPECT_NE(what.find("all fifteen operations are drawn alike"), std::string::npos) << what;
  }
}

TEST(RandAugment, ArgumentsAtLevelNine) {
  struct Case {
    AugmentOp op;
    double plus, minus;
  };
  for (const Case& c :
       {Case{AugmentOp::Rotate, 27, -27}, Case{AugmentOp::Posterize, 1, 1},
        Case{AugmentOp::Solarize, 26, 26}, Case{AugmentOp::SolarizeAdd, 99, 99},
        Case{AugmentOp::Color, 1.81, 0.19}, Case{AugmentOp::Sharpness, 1.81, 0.19},
        Case{AugmentOp::ShearX, 0.27, -0.27}, Case{AugmentOp::TranslateY, 0.405, -0.405}}) {
    EXPECT_NEAR(augment_argument(c.op, 9, false, true), c.plus, 1e-12);
    EXPECT_NEAR(augment_argument(c.op, 9, true, true), c.minus, 1e-12);
  }
  EXPECT_EQ(augment_argument(AugmentOp::Posterize, 10, false, true), 0);
  EXPECT_EQ(augment_argument(AugmentOp::Solarize, 10, false, true), 0);
  EXPECT_NEAR(augment_argument(AugmentOp::Color, 10, true, true), 0.1, 1e-12);
  // The older, not increasing set.
  EXPECT_EQ(augment_argument(AugmentOp::Posterize, 9, false, false), 3);
  EXPECT_EQ(augment_argument(AugmentOp::Solarize, 9, false, false), 230);
  EXPECT_NEAR(augment_argument(AugmentOp::Color, 9, false, false), 1.72, 1e-12);
}

TEST(RandAugment, DrawsHaveTheRightStatistics) {
  constexpr int kDraws = 100000;
  const RandAugment settings = parse_randaugment(kPolicy);
  std::array<int, kAugmentOps> counts{};
  double applied = 0, level = 0, top = 0, negative = 0;
  for (std::uint64_t sample = 0; sample < kDraws; ++sample) {
    RandomStream random(1, Purpose::Test, sample);
    const auto draws = draw_randaugment(settings, random);
    ASSERT_EQ(draws.size(), 2U);
    for (const AugmentDraw& draw : draws) {
      ++counts[static_cast<std::size_t>(draw.op)];
      applied += draw.applied;
      level += draw.level;
      top += draw.level == 10;
      negative += draw.negative;
    }
  }
  EXPECT_NEAR(applied / kDraws, 1.0, 0.01);
  EXPECT_NEAR(level / (2 * kDraws), 8.996, 0.005);  // N(9, 0.5) clipped at 10
  EXPECT_NEAR(top / (2 * kDraws), 0.0228, 0.0015);  // P(N(9, 0.5) > 10)
  EXPECT_NEAR(negative / (2 * kDraws), 0.5, 0.005);
  double chi_square = 0;
  for (const int count : counts) {
    const double expected = 2.0 * kDraws / kAugmentOps;
    chi_square += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_square, 36.1);  // 99.9 % of 14 degrees of freedom
}

TEST(RandAugment, IsAFunctionOfTheStream) {
  const RandAugment settings = parse_randaugment("rand-m9-mstd0.5-n4-p1-inc1");
  const auto run = [&](std::uint64_t key) {
    Image image = test::pattern_image(32);
    RandomStream random(3, Purpose::Augment, key);
    randaugment(image, settings, {124, 116, 104}, random);
    return image;
  };
  EXPECT_EQ(run(5), run(5));
  EXPECT_NE(run(5), run(6));
}

TEST(RandAugment, AppliesItsDrawsInOrder) {
  const RandAugment settings = parse_randaugment("rand-m7-mstd1-n5-inc1");
  const Rgb fill{124, 116, 104};
  RandomStream first(8, Purpose::Test), second(8, Purpose::Test);
  Image expected = test::pattern_image(16), image = expected;
  for (const AugmentDraw& draw : draw_randaugment(settings, first)) {
    if (!draw.applied) continue;
    apply_augment_op(expected, draw.op, augment_argument(draw.op, draw.level, draw.negative, true),
                     fill);
  }
  randaugment(image, settings, fill, second);
  EXPECT_EQ(image, expected);
}

}  // namespace
}  // namespace ablate
