#include "datasets/color_distortion.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/transforms/image_fixtures.h"

namespace ablate {
namespace {

using test::crc32;
using test::pattern_image;

// Goldens: OpenCV (tests/golden/make_dense_golden.py).
TEST(HueSaturationValue, EqualsOpenCv) {
  Image image = pattern_image(32);
  rgb_to_hsv(image);
  EXPECT_EQ(crc32(image), 0x7d53918cU);
  hsv_to_rgb(image);
  EXPECT_EQ(crc32(image), 0x7bcf8c48U);
}

TEST(HueSaturationValue, OfPureColours) {
  Image image;
  image.reshape(6, 1);
  image.pixels = {255, 0, 0, 255, 255, 0, 0, 255, 0, 0, 255, 255, 0, 0, 255, 90, 90, 90};
  const Image colours = image;
  rgb_to_hsv(image);
  EXPECT_EQ(image.pixels, (std::vector<std::uint8_t>{0, 255, 255, 30, 255, 255, 60, 255, 255, 90,
                                                     255, 255, 120, 255, 255, 0, 0, 90}));
  hsv_to_rgb(image);
  for (std::size_t i = 0; i < image.pixels.size(); ++i) {
    EXPECT_NEAR(image.pixels[i], colours.pixels[i], 1) << "values are cut, not rounded";
  }
}

TEST(HueSaturationValue, AThirdOfTheCircleExchangesTheChannels) {
  Image image;
  image.reshape(1, 1);
  image.pixels = {200, 100, 0};
  for (const auto& [steps, expected] :
       {std::pair{60, std::vector<std::uint8_t>{0, 200, 100}}, {-60, {100, 0, 200}}}) {
    Image turned = image;
    turn_hue(turned, steps);
    for (std::size_t c = 0; c < 3; ++c) {
      EXPECT_NEAR(turned.pixels[c], expected[c], 2) << steps << ", channel " << c;
    }
  }
}

TEST(ScaledValues, AreClippedAndCut) {
  Image image;
  image.reshape(1, 1);
  image.pixels = {3, 101, 200};
  Image brighter = image, contrast = image;
  scale_values(brighter, 1, 60.7F);
  EXPECT_EQ(brighter.pixels, (std::vector<std::uint8_t>{63, 161, 255}));
  scale_values(contrast, 1.5F, 0);
  EXPECT_EQ(contrast.pixels, (std::vector<std::uint8_t>{4, 151, 255}));
  scale_values(image, 1, -20.5F);
  EXPECT_EQ(image.pixels, (std::vector<std::uint8_t>{0, 80, 179}));
}

TEST(ScaledSaturation, OfGreyAndWithFactorOneIsNearlyNothing) {
  Image grey = test::noise_image(8, 8, 1);
  for (std::size_t i = 0; i < grey.pixels.size(); i += 3) {
    grey.pixels[i + 1] = grey.pixels[i + 2] = grey.pixels[i];
  }
  for (const float factor : {1.4F, 0.5F}) {
    Image changed = grey;
    scale_saturation(changed, factor);
    for (std::size_t i = 0; i < grey.pixels.size(); ++i) {
      EXPECT_NEAR(changed.pixels[i], grey.pixels[i], 1);
    }
  }
}

// The mean over many draws: each of four with probability 1/2.
TEST(DistortedColours, HalfOfTheDrawsLeaveEach) {
  const Image image = pattern_image(8);
  int unchanged = 0;
  constexpr int kDraws = 4000;
  for (int i = 0; i < kDraws; ++i) {
    RandomStream random(1, Purpose::Test, static_cast<std::uint64_t>(i));
    Image distorted = image;
    distort_colors(distorted, random);
    unchanged += distorted == image ? 1 : 0;
  }
  // All four left out: 1/16, standard deviation 0.0038.
  EXPECT_NEAR(unchanged / double{kDraws}, 1.0 / 16, 0.016);
}

}  // namespace
}  // namespace ablate
