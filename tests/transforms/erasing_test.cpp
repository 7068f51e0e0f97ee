#include "datasets/erasing.h"

#include <cmath>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace ablate {
namespace {

constexpr int kSide = 32, kPlane = kSide * kSide;
constexpr float kUntouched = 100;

std::vector<float> erase(double probability, ErasingMode mode, std::uint64_t key) {
  std::vector<float> image(3 * kPlane, kUntouched);
  RandomStream random(1, Purpose::Test, key);
  random_erase(image.data(), 3, kSide, kSide, {probability, mode}, random);
  return image;
}

struct Extent {
  int count = 0, left = kSide, right = -1, top = kSide, bottom = -1;
  int area() const { return count == 0 ? 0 : (right - left + 1) * (bottom - top + 1); }
};

Extent extent(const std::vector<float>& image, int channel) {
  Extent found;
  for (int i = 0; i < kPlane; ++i) {
    if (image[static_cast<std::size_t>(channel * kPlane + i)] == kUntouched) continue;
    ++found.count;
    found.left = std::min(found.left, i % kSide);
    found.right = std::max(found.right, i % kSide);
    found.top = std::min(found.top, i / kSide);
    found.bottom = std::max(found.bottom, i / kSide);
  }
  return found;
}

TEST(Erasing, ErasesOneBoxOfTheRightSizeInAllChannels) {
  int erased = 0;
  for (std::uint64_t key = 0; key < 500; ++key) {
    const auto image = erase(1, ErasingMode::Const, key);
    const Extent box = extent(image, 0);
    ASSERT_EQ(box.count, box.area());
    for (int c = 1; c < 3; ++c) {
      const Extent other = extent(image, c);
      ASSERT_TRUE(other.left == box.left && other.right == box.right && other.top == box.top &&
                  other.bottom == box.bottom);
    }
    if (box.count == 0) continue;
    ++erased;
    ASSERT_LT(box.right - box.left + 1, kSide);
    ASSERT_LT(box.bottom - box.top + 1, kSide);
    // 2 % to 1/3 of the area, but for the rounding of both sides.
    ASSERT_GT(box.count, 0.01 * kPlane);
    ASSERT_LT(box.count, 0.37 * kPlane);
  }
  EXPECT_GT(erased, 495);
}

TEST(Erasing, HappensWithItsProbability) {
  int erased = 0;
  constexpr int kDraws = 4000;
  for (std::uint64_t key = 0; key < kDraws; ++key) {
    erased += extent(erase(0.25, ErasingMode::Const, key), 0).count > 0;
  }
  EXPECT_NEAR(erased, 0.25 * kDraws, 110);  // four standard deviations
  EXPECT_EQ(extent(erase(0, ErasingMode::Pixel, 1), 0).count, 0);
}

TEST(Erasing, PixelsAreStandardNormal) {
  double sum = 0, squares = 0, fourth = 0, neighbours = 0;
  int count = 0;
  for (std::uint64_t key = 0; key < 400; ++key) {
    double last = 0;
    for (const float v : erase(1, ErasingMode::Pixel, key)) {
      if (v == kUntouched) continue;
      sum += v;
      squares += v * v;
      fourth += std::pow(v, 4);
      neighbours += v * last;
      last = v;
      ++count;
    }
  }
  ASSERT_GT(count, 100000);
  EXPECT_NEAR(sum / count, 0, 0.015);
  EXPECT_NEAR(squares / count, 1, 0.02);
  EXPECT_NEAR(fourth / count, 3, 0.15);
  EXPECT_NEAR(neighbours / count, 0, 0.015);
}

TEST(Erasing, RandIsOneValueAChannel) {
  for (std::uint64_t key = 0; key < 20; ++key) {
    const auto image = erase(1, ErasingMode::Rand, key);
    std::set<float> values;
    for (int c = 0; c < 3; ++c) {
      const auto plane = image.begin() + c * kPlane;
      std::set<float> channel(plane, plane + kPlane);
      channel.erase(kUntouched);
      ASSERT_LE(channel.size(), 1U);
      values.merge(channel);
    }
    ASSERT_TRUE(values.empty() || values.size() == 3U);
  }
}

}  // namespace
}  // namespace ablate
