#include "datasets/image_kernels.h"

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/transforms/image_fixtures.h"

namespace ablate {
namespace {

using Bytes = std::vector<std::uint8_t>;

// Whatever instruction set the machine has, the bits are those of the baseline. Without a faster
// set both are the same functions and the test is trivially true.
TEST(ImageKernels, EqualTheBaselineBitForBit) {
  const ImageKernels &fast = image_kernels(), &base = baseline_kernels();
  RandomStream random(7, Purpose::Test);
  for (int round = 0; round < 50; ++round) {
    const int width = 3 + static_cast<int>(random.below(70));
    const Image image = test::noise_image(width + 1, 9, static_cast<std::uint64_t>(round));
    const Bytes& pixels = image.pixels;
    const std::size_t stride = 3 * static_cast<std::size_t>(width);
    const auto same = [&](std::size_t size, auto call) {
      Bytes a(size), b(size);
      call(fast, a.data());
      call(base, b.data());
      EXPECT_EQ(a, b) << "width " << width;
    };
    std::vector<std::int32_t> weights(9);
    for (auto& w : weights) w = static_cast<std::int32_t>(random.below(1U << 20)) - (1 << 18);
    same(stride, [&](const ImageKernels& k, std::uint8_t* out) {
      k.combine_rows(pixels.data(), stride, weights.data(), 9, out);
    });
    const float factor = random.uniform() * 2;
    same(stride, [&](const ImageKernels& k, std::uint8_t* out) {
      k.blend(pixels.data(), pixels.data() + stride, stride, factor, out);
    });
    same(stride - 6, [&](const ImageKernels& k, std::uint8_t* out) {
      k.smooth(pixels.data(), pixels.data() + stride, pixels.data() + 2 * stride, stride - 6, out);
    });
    const double angle = random.uniform(-1, 1);
    const AffineRow source{pixels.data(),
                           width,
                           9,
                           {std::cos(angle), 0.2, 1.5, -std::sin(angle), 0.9, 0.3},
                           {9, 8, 7}};
    for (int y = 0; y < 9; ++y) {
      same(stride, [&](const ImageKernels& k, std::uint8_t* out) { k.affine_row(source, y, out); });
    }
  }
}

TEST(ImageKernels, ResampleRowIsTheWeightedSum) {
  constexpr int kWidth = 5, kPairs = 2;
  const Image image = test::noise_image(kWidth + 1, 1, 4);
  const std::vector<int> first{0, 2};
  const std::vector<double> shares{0.5, 0.25, 0.25, 0, 1.25, -0.5, 0.25, 0};
  std::vector<std::int32_t> weights;
  for (const double share : shares) {
    weights.insert(weights.end(), 4, static_cast<std::int32_t>(share * (1 << kTapBits)));
  }
  for (const ImageKernels* kernels : {&image_kernels(), &baseline_kernels()}) {
    std::vector<std::int32_t> wide(4 * (kWidth + 2 * kPairs));
    Bytes out(6);
    kernels->resample_row(image.pixels.data(), kWidth, {2, kPairs, first.data(), weights.data()},
                          wide.data(), out.data());
    for (std::size_t o = 0; o < 2; ++o) {
      for (std::size_t c = 0; c < 3; ++c) {
        double sum = 0;
        for (std::size_t k = 0; k < 3; ++k) {
          sum += shares[4 * o + k] * image.pixels[3 * (static_cast<std::size_t>(first[o]) + k) + c];
        }
        EXPECT_EQ(out[3 * o + c], std::clamp(std::floor(sum + 0.5), 0.0, 255.0));
      }
    }
  }
}

}  // namespace
}  // namespace ablate
