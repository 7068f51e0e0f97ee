#include "runner/train/dense_inference.h"

#include <cmath>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"

// Inference of dense models against each pixel worked out by itself.

namespace ablate {
namespace {

constexpr std::int64_t kDenseClasses = 3, kToyStride = 4;

at::Tensor wavy_image(std::int64_t height, std::int64_t width) {
  return at::arange(3 * height * width, at::kDouble).mul(0.37).sin().view({1, 3, height, width});
}

/// Scores of cells of 4 x 4 pixels which depend on where a cell lies in what was asked, as those of
/// a network with padding do.
at::Tensor toy_scores(const at::Tensor& images) {
  const at::Tensor means = at::avg_pool2d(images, kToyStride, kToyStride, 0, /*ceil_mode=*/true);
  const at::Tensor column = at::arange(means.size(3), at::kDouble).mul(0.3);
  const at::Tensor row = at::arange(means.size(2), at::kDouble).mul(0.2).view({-1, 1});
  return means + column.sin() + row.cos();
}

at::Tensor up(const at::Tensor& map, std::int64_t height, std::int64_t width) {
  return at::upsample_bilinear2d(map, {height, width}, false);
}

/// Pixel by pixel: the mean over all windows that hold it.
at::Tensor brute_windows(const at::Tensor& image, const std::vector<std::int64_t>& tops,
                         const std::vector<std::int64_t>& lefts, std::int64_t crop) {
  const std::int64_t height = image.size(2), width = image.size(3);
  at::Tensor result = at::zeros({1, kDenseClasses, height, width}, at::kDouble);
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      at::Tensor sum = at::zeros({kDenseClasses}, at::kDouble);
      int count = 0;
      for (const std::int64_t top : tops) {
        for (const std::int64_t left : lefts) {
          const bool inside = y >= top && y < top + crop && x >= left && x < left + crop;
          if (!inside) continue;
          const std::int64_t tall = std::min(crop, height), wide = std::min(crop, width);
          const at::Tensor window = image.slice(2, top, top + crop).slice(3, left, left + crop);
          sum += up(toy_scores(window), tall, wide)[0].select(1, y - top).select(1, x - left);
          ++count;
        }
      }
      result[0].select(1, y).select(1, x).copy_(sum / count);
    }
  }
  return result;
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

// Published settings, and their formula: max(length - crop + stride - 1, 0) / stride + 1 windows.
TEST(DenseInferenceWindows, CoverTheAxisAndEndWithIt) {
  EXPECT_EQ(window_starts(683, 512, 480), (std::vector<std::int64_t>{0, 171}));
  EXPECT_EQ(window_starts(512, 512, 341), std::vector<std::int64_t>{0});
  EXPECT_EQ(window_starts(300, 512, 341), std::vector<std::int64_t>{0});
  for (const std::int64_t length : {5, 16, 17, 33, 40, 100}) {
    for (const std::int64_t stride : {1, 5, 11, 16}) {
      constexpr std::int64_t kCrop = 16;
      const auto starts = window_starts(length, kCrop, stride);
      EXPECT_EQ(static_cast<std::int64_t>(starts.size()),
                std::max<std::int64_t>(length - kCrop + stride - 1, 0) / stride + 1);
      EXPECT_EQ(starts.back(), std::max<std::int64_t>(length - kCrop, 0));
    }
  }
}

TEST(DenseInference, OfWholeImagesInterpolatesTwice) {
  const at::Tensor image = wavy_image(18, 26);
  const at::Tensor expected = up(up(toy_scores(image), 18, 26), 31, 45);
  EXPECT_LT(difference(dense_logits(toy_scores, image, 31, 45, {}), expected), 1e-12);
}

TEST(DenseInference, OfWindowsIsTheMeanOfAllThatHoldAPixel) {
  DenseInference slide;
  slide.sliding = true;
  slide.crop = 16;
  slide.stride = 11;
  const at::Tensor image = wavy_image(21, 40);
  const at::Tensor expected = brute_windows(image, {0, 5}, {0, 11, 22, 24}, 16);
  EXPECT_LT(difference(dense_logits(toy_scores, image, 21, 40, slide), expected), 1e-12);
  EXPECT_LT(difference(dense_logits(toy_scores, image, 30, 29, slide), up(expected, 30, 29)),
            1e-12);
  const at::Tensor small = wavy_image(9, 12);
  EXPECT_LT(
      difference(dense_logits(toy_scores, small, 9, 12, slide), brute_windows(small, {0}, {0}, 16)),
      1e-12);
}

TEST(DenseInference, OfSeveralSizesAveragesProbabilities) {
  DenseInference many;
  many.ratios = {0.5, 1.0, 1.75};
  many.flip = true;
  const at::Tensor image = wavy_image(18, 27);
  at::Tensor expected = at::zeros({1, kDenseClasses, 20, 30}, at::kDouble);
  const auto add = [&](const at::Tensor& seen) {
    for (const bool mirrored : {false, true}) {
      const at::Tensor asked = mirrored ? seen.flip({3}) : seen;
      const at::Tensor logits = up(up(toy_scores(asked), asked.size(2), asked.size(3)), 20, 30);
      expected += at::softmax(mirrored ? logits.flip({3}) : logits, 1) / 6;
    }
  };
  add(up(image, 9, 14));  // 13.5 is rounded up
  add(image);
  add(up(image, 32, 47));
  const at::Tensor scores = dense_logits(toy_scores, image, 20, 30, many);
  EXPECT_LT(difference(scores, expected), 1e-12);
  EXPECT_LT(difference(scores.sum(1), at::ones({1, 20, 30}, at::kDouble)), 1e-12);
}

TEST(DenseInference, PicksTheSameClassesRowsAtATime) {
  for (const bool sliding : {false, true}) {
    DenseInference settings;
    settings.sliding = sliding;
    settings.crop = 16;
    settings.stride = 11;
    settings.flip = true;
    // More scores than are kept at a time.
    const std::int64_t height = 2500, width = 2300;
    const DenseScores scores(toy_scores, wavy_image(20, 24), height, width, settings);
    const at::Tensor labels = scores.labels();
    ASSERT_EQ(labels.sizes(), (std::vector<std::int64_t>{1, height, width}));
    for (const std::int64_t row : {0, 1000, 2431, 2499}) {
      EXPECT_TRUE(at::equal(labels.select(1, row), scores.rows(row, 1).argmax(1).select(1, 0)))
          << row;
    }
  }
}

TEST(DenseInference, ReadsItsSettings) {
  const auto read = [](std::string_view toml) {
    const Value table = parse_toml(toml, "test");
    Params params(table, "task");
    const DenseInference settings = DenseInference::read(params);
    params.finish();
    return settings;
  };
  EXPECT_FALSE(read("").sliding);
  const DenseInference slide = read(
      "inference = 'slide'\ncrop = 640\nstride = 426\nflip = true\n"
      "ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]");
  EXPECT_TRUE(slide.sliding);
  EXPECT_EQ(slide.crop, 640);
  EXPECT_EQ(slide.stride, 426);
  EXPECT_EQ(slide.ratios.size(), 6U);
  const auto refusal = [&](std::string_view toml) {
    return test::message_of<SpecError>([&] { read(toml); });
  };
  EXPECT_NE(refusal("crop = 64\nstride = 65").find("gaps"), std::string::npos);
  EXPECT_NE(refusal("ratios = []").find("empty"), std::string::npos);
}

}  // namespace
}  // namespace ablate
