#include "datasets/dense_transforms.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/params.h"
#include "tests/transforms/label_fixtures.h"

namespace ablate {
namespace {

using test::crc32;
using test::label_pattern;

const Normalization kStatistics{{0.485F, 0.456F, 0.406F}, {0.229F, 0.224F, 0.225F}};

AugmentRecipe dense_recipe(const std::string& toml = "", int size = 48) {
  const Value table = parse_toml(toml, "sweep.toml");
  Params params(table, "augmentation");
  AugmentRecipe result = read_augmentation(kDenseAugmentation, params, size);
  params.finish();
  return result;
}

LabelledImage pattern(int width = 90, int height = 61) {
  return {test::pattern_image(width, height), label_pattern(width, height)};
}

TEST(DenseRecipe, Defaults) {
  const AugmentRecipe recipe = dense_recipe("", 512);
  ASSERT_TRUE(recipe.dense);
  EXPECT_EQ(recipe.image_size, 512);
  EXPECT_EQ(recipe.flip, 0.5);
  EXPECT_EQ(recipe.dense->frame_long, 2048);
  EXPECT_EQ(recipe.dense->frame_short, 512);
  EXPECT_EQ(recipe.dense->ratio_low, 0.5);
  EXPECT_EQ(recipe.dense->ratio_high, 2.0);
  EXPECT_EQ(recipe.dense->cat_max_ratio, 0.75);
  EXPECT_TRUE(recipe.dense->photometric);
  EXPECT_FALSE(recipe.mixing.enabled()) << "labels of pixels are never mixed";
}

TEST(DenseRecipe, MistakesNamePlaceAndKey) {
  for (const std::string toml : {"resize = [64, 128]", "resize = [64]", "ratio = [2.0, 0.5]",
                                 "cat_max_ratio = 0", "mixup = 0.8", "photometric = 3"}) {
    const std::string key = toml.substr(0, toml.find(' '));
    try {
      dense_recipe(toml);
      ADD_FAILURE() << toml;
    } catch (const SpecError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find("sweep.toml:1:"), std::string::npos) << message;
      EXPECT_NE(message.find(key), std::string::npos) << message;
    }
  }
}

// Goldens: the pipeline in numpy and OpenCV (tests/golden/make_dense_golden.py).
TEST(DenseTraining, EqualsTheReference) {
  struct Case {
    std::uint64_t sample;
    int width, height;
    std::uint32_t image, labels;
  };
  const DenseTrainTransform transform(dense_recipe(), kStatistics);
  for (const Case& c :
       {Case{0, 48, 48, 0x910a8337, 0x4a1f2c11}, Case{1, 48, 48, 0xf5fa4e66, 0xff5a688d},
        Case{2, 48, 48, 0xb9362102, 0x4e359c33}, Case{3, 48, 48, 0x617c0438, 0x54c3ea1c},
        Case{4, 48, 48, 0xd7f5b564, 0xe4f2c705}, Case{5, 48, 48, 0x474d1417, 0x4b4455d5},
        Case{6, 48, 48, 0xd15f2cf4, 0xd453ef90}, Case{7, 48, 48, 0x08a11229, 0x45ea9270},
        Case{8, 48, 48, 0x638dba9d, 0x007f3121}, Case{9, 48, 48, 0x0936a3c8, 0xe16fcab1},
        Case{10, 48, 48, 0xa6dc3535, 0x803e0b8e}, Case{11, 48, 39, 0x5169ed46, 0x8c3a4673}}) {
    const LabelledImage made = transform.augmented(pattern(), {.seed = 7, .sample = c.sample});
    EXPECT_EQ(made.image.width, c.width) << c.sample;
    EXPECT_EQ(made.image.height, c.height) << c.sample;
    EXPECT_EQ(crc32(made.image), c.image) << c.sample;
    EXPECT_EQ(crc32(made.labels.classes), c.labels) << c.sample;
  }
}

/// Labels that tell where the image's pixels come from: the class is the red value.
LabelledImage readable(int width, int height) {
  LabelledImage sample;
  sample.image.reshape(width, height);
  sample.labels.reshape(width, height);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const auto label = static_cast<std::uint8_t>((x / 16 + 4 * (y / 16)) * 10);
      sample.labels.row(y)[x] = label;
      std::fill_n(sample.image.row(y) + x * Image::kChannels, Image::kChannels, label);
    }
  }
  return sample;
}

// Away from the borders of areas an image's colour is its label, wherever the crop lies and
// mirrored or not: image and labels go the same way.
TEST(DenseTraining, LabelsFollowTheirPixels) {
  const DenseTrainTransform transform(dense_recipe("photometric = false", 32), kStatistics);
  const LabelledImage sample = readable(64, 64);
  std::set<std::uint8_t> first_corner;
  for (std::uint64_t draw = 0; draw < 60; ++draw) {
    const LabelledImage made = transform.augmented(sample, {.seed = 3, .sample = draw});
    int equal = 0;
    for (std::size_t i = 0; i < made.labels.classes.size(); ++i) {
      EXPECT_EQ(made.labels.classes[i] % 10, 0) << "labels are moved, never blended";
      equal += made.labels.classes[i] == made.image.pixels[i * 3] ? 1 : 0;
    }
    EXPECT_GT(equal, static_cast<int>(made.labels.classes.size() * 3 / 5)) << draw;
    first_corner.insert(made.labels.classes[0]);
  }
  EXPECT_GT(first_corner.size(), 4U);
}

TEST(DenseTraining, PadsWithZerosAndWithoutLabels) {
  const AugmentRecipe recipe =
      dense_recipe("ratio = [1.0, 1.0]\nresize = [40, 20]\nphotometric = false", 32);
  const DenseTrainTransform transform(recipe, kStatistics);
  std::vector<float> chw(3 * 32 * 32, 7.0F);
  std::vector<std::uint8_t> target(32 * 32, 9);
  transform(readable(40, 20), {.seed = 1, .sample = 2}, chw.data(), target.data());
  for (std::size_t y = 0; y < 32; ++y) {
    for (std::size_t x = 0; x < 32; ++x) {
      const std::size_t at = y * 32 + x;
      EXPECT_EQ(target[at] == LabelMap::kIgnore, y >= 20) << y << ", " << x;
      if (y < 20) continue;
      for (std::size_t c = 0; c < 3; ++c) EXPECT_EQ(chw[c * 1024 + at], 0.0F);
    }
  }
}

// A class that fills most of an image is drawn around; where nothing else exists, the last draw
// counts.
TEST(DenseTraining, LooksForASquareWithMoreThanOneClass) {
  LabelledImage sample = readable(128, 128);
  std::ranges::fill(sample.labels.classes, std::uint8_t{1});
  for (int y = 0; y < 24; ++y) std::fill_n(sample.labels.row(y), 128, std::uint8_t{2});
  const std::string fixed = "ratio = [1.0, 1.0]\nresize = [128, 128]\nphotometric = false\n";
  const auto varied = [&](const std::string& settings) {
    const DenseTrainTransform transform(dense_recipe(fixed + settings, 32), kStatistics);
    int count = 0;
    for (std::uint64_t draw = 0; draw < 300; ++draw) {
      const LabelMap labels = transform.augmented(sample, {.seed = 5, .sample = draw}).labels;
      const auto twos = std::ranges::count(labels.classes, std::uint8_t{2});
      count += twos > 256 && twos < 768 ? 1 : 0;
    }
    return count / 300.0;
  };
  // Rows 1 to 15 of 97 places give a share between 1/4 and 3/4 of the second class.
  const double once = 15.0 / 97;
  EXPECT_NEAR(varied("cat_max_ratio = 1.0"), once, 0.09);
  EXPECT_NEAR(varied("cat_max_ratio = 0.75"), 1 - std::pow(1 - once, 11), 0.09);
}

TEST(DenseTraining, PixelsWithoutALabelDoNotCountAsAClass) {
  LabelledImage sample = readable(64, 64);
  std::ranges::fill(sample.labels.classes, LabelMap::kIgnore);
  const DenseTrainTransform transform(dense_recipe("", 32), kStatistics);
  const LabelledImage made = transform.augmented(sample, {.seed = 1, .sample = 1});
  EXPECT_EQ(std::ranges::count(made.labels.classes, LabelMap::kIgnore),
            static_cast<std::ptrdiff_t>(made.labels.classes.size()));
}

TEST(DenseEvaluation, ResizesIntoTheFrameAndNormalizes) {
  const AugmentRecipe recipe = dense_recipe("", 64);
  const DenseEvalTransform transform(recipe, kStatistics);
  const LabelledImage sample = pattern(100, 50);
  const Size size = transform.size_of(sample.image);
  EXPECT_EQ(size.width, 128);
  EXPECT_EQ(size.height, 64);
  std::vector<float> chw(static_cast<std::size_t>(3 * size.width * size.height));
  transform(sample.image, chw.data());
  const float first = (0.0F / 255 - 0.485F) / 0.229F;
  EXPECT_EQ(chw[0], first) << "the corner keeps its red of 0";
}

}  // namespace
}  // namespace ablate
