#include "datasets/dense_transforms.h"

#include <algorithm>
#include <array>

#include "datasets/color_distortion.h"
#include "datasets/linear_resize.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr int kRedraws = 10;

/// Whether there is more than one class, and none that fills `most` of what has a class or more.
bool is_varied(const LabelMap& labels, double most) {
  std::array<std::int64_t, 256> pixels{};
  for (const std::uint8_t label : labels.classes) ++pixels[label];
  pixels[LabelMap::kIgnore] = 0;
  std::int64_t sum = 0;
  for (const std::int64_t count : pixels) sum += count;
  const std::int64_t largest = *std::ranges::max_element(pixels);
  return largest < sum && static_cast<double>(largest) / static_cast<double>(sum) < most;
}

/// A square of `side` within an image, smaller where that is. Draws: top, left.
Box draw_window(Size size, int side, RandomStream& random) {
  const auto offset = [&](int length) {
    return static_cast<int>(
        random.below(static_cast<std::uint32_t>(std::max(length - side, 0)) + 1));
  };
  const int top = offset(size.height), left = offset(size.width);
  return {left, top, std::min(side, size.width), std::min(side, size.height)};
}

void mirror(LabelMap& labels) {
  for (int y = 0; y < labels.height; ++y) {
    std::reverse(labels.row(y), labels.row(y) + labels.width);
  }
}

const DenseRecipe& dense_of(const AugmentRecipe& recipe) {
  ABLATE_CHECK(recipe.dense, "labels of pixels, but an augmentation without them");
  ABLATE_CHECK(!recipe.mixing.enabled(), "labels of pixels are never mixed");
  return *recipe.dense;
}

}  // namespace

DenseTrainTransform::DenseTrainTransform(const AugmentRecipe& recipe,
                                         const Normalization& statistics)
    : recipe_(recipe), normalize_(statistics) {
  dense_of(recipe);
}

LabelledImage DenseTrainTransform::augmented(const LabelledImage& sample,
                                             const AugmentKey& key) const {
  const DenseRecipe& dense = *recipe_.dense;
  const double ratio = key.stream(AugmentStage::Scale).uniform(dense.ratio_low, dense.ratio_high);
  const Size size = size_in_frame(sample.image.width, sample.image.height,
                                  static_cast<int>(dense.frame_long * ratio),
                                  static_cast<int>(dense.frame_short * ratio));
  LabelledImage result;
  RandomStream random = key.stream(AugmentStage::Crop);
  Box window;
  for (int draw = 0; draw <= kRedraws; ++draw) {
    window = draw_window(size, recipe_.image_size, random);
    result.labels = nearest_resize(sample.labels, size.width, size.height, window);
    if (dense.cat_max_ratio >= 1 || is_varied(result.labels, dense.cat_max_ratio)) break;
  }
  result.image = linear_resize(sample.image, size.width, size.height, window);
  if (key.stream(AugmentStage::Flip).chance(recipe_.flip)) {
    hflip(result.image);
    mirror(result.labels);
  }
  if (dense.photometric) {
    RandomStream colors = key.stream(AugmentStage::Photometric);
    distort_colors(result.image, colors);
  }
  return result;
}

void DenseTrainTransform::operator()(const LabelledImage& sample, const AugmentKey& key, float* chw,
                                     std::uint8_t* target) const {
  const LabelledImage part = augmented(sample, key);
  const auto side = static_cast<std::size_t>(recipe_.image_size);
  const auto width = static_cast<std::size_t>(part.image.width);
  std::fill_n(chw, Image::kChannels * side * side, 0.0F);
  std::fill_n(target, side * side, LabelMap::kIgnore);
  std::vector<float> values(part.image.pixels.size());
  normalize_(part.image, values.data());
  const auto rows = static_cast<std::size_t>(part.image.height);
  for (std::size_t c = 0; c < Image::kChannels; ++c) {
    for (std::size_t y = 0; y < rows; ++y) {
      std::copy_n(&values[(c * rows + y) * width], width, chw + (c * side + y) * side);
    }
  }
  for (std::size_t y = 0; y < rows; ++y) {
    std::copy_n(part.labels.row(static_cast<int>(y)), width, target + y * side);
  }
}

DenseEvalTransform::DenseEvalTransform(const AugmentRecipe& recipe, const Normalization& statistics)
    : recipe_(dense_of(recipe)), normalize_(statistics) {}

Size DenseEvalTransform::size_of(const Image& image) const {
  return size_in_frame(image.width, image.height, recipe_.frame_long, recipe_.frame_short);
}

void DenseEvalTransform::operator()(const Image& image, float* chw) const {
  const Size size = size_of(image);
  normalize_(linear_resize(image, size.width, size.height, {0, 0, size.width, size.height}), chw);
}

}  // namespace ablate
