#include "datasets/transforms.h"

#include <algorithm>

#include "datasets/geometry.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

Image eval_crop(const Image& image, const AugmentRecipe& recipe) {
  const int size = recipe.image_size;
  const bool resized = std::min(image.width, image.height) != recipe.eval_resize;
  if (!resized) return crop(image, center_crop_box(image.width, image.height, size));
  const Size target = resized_size(image.width, image.height, recipe.eval_resize);
  const Image whole = resize(image, target.width, target.height, recipe.interpolation);
  return crop(whole, center_crop_box(target.width, target.height, size));
}

Image train_crop(const Image& image, const AugmentRecipe& recipe, const AugmentKey& key) {
  if (recipe.crop == CropMode::None) return eval_crop(image, recipe);
  RandomStream random = key.stream(AugmentStage::Crop);
  const int size = recipe.image_size;
  if (recipe.crop == CropMode::Pad) return random_crop(image, size, recipe.pad, random);
  const Box box = random_resized_crop_box(image.width, image.height, recipe.resized, random);
  return resize(image, box, size, size, recipe.interpolation);
}

}  // namespace

std::uint64_t sample_key(std::uint64_t epoch, std::uint64_t index, std::uint32_t repetition) {
  ABLATE_CHECK(repetition < (1U << 4) && epoch < (1ULL << 20) && index < (1ULL << 40),
               "draw out of range: epoch ", epoch, ", index ", index, ", repetition ", repetition);
  return std::uint64_t{repetition} << 60 | epoch << 40 | index;
}

Rgb mean_color(const Normalization& statistics) {
  Rgb fill;
  std::transform(statistics.mean.begin(), statistics.mean.end(), fill.begin(), [](float mean) {
    return static_cast<std::uint8_t>(std::clamp(round_half_even(255.0 * mean), 0, 255));
  });
  return fill;
}

Normalizer::Normalizer(const Normalization& statistics) {
  for (std::size_t c = 0; c < table_.size(); ++c) {
    for (std::size_t v = 0; v < table_[c].size(); ++v) {
      table_[c][v] = (static_cast<float>(v) / 255.0F - statistics.mean[c]) / statistics.std[c];
    }
  }
}

void Normalizer::operator()(const Image& image, float* chw) const {
  const std::size_t plane = image.pixels.size() / Image::kChannels;
  float *red = chw, *green = chw + plane, *blue = chw + 2 * plane;
  const std::uint8_t* rgb = image.pixels.data();
  for (std::size_t i = 0; i < plane; ++i, rgb += Image::kChannels) {
    red[i] = table_[0][rgb[0]];
    green[i] = table_[1][rgb[1]];
    blue[i] = table_[2][rgb[2]];
  }
}

EvalTransform::EvalTransform(const AugmentRecipe& recipe, const Normalization& statistics)
    : recipe_(recipe), normalize_(statistics) {}

void EvalTransform::operator()(const Image& image, float* chw) const {
  normalize_(eval_crop(image, recipe_), chw);
}

TrainTransform::TrainTransform(const AugmentRecipe& recipe, const Normalization& statistics)
    : recipe_(recipe), normalize_(statistics), fill_(mean_color(statistics)) {}

Image TrainTransform::augmented(const Image& image, const AugmentKey& key) const {
  Image result = train_crop(image, recipe_, key);
  if (key.stream(AugmentStage::Flip).chance(recipe_.flip)) hflip(result);
  if (recipe_.randaugment) {
    RandomStream random = key.stream(AugmentStage::RandAugment);
    randaugment(result, *recipe_.randaugment, fill_, random);
  }
  return result;
}

void TrainTransform::operator()(const Image& image, const AugmentKey& key, float* chw) const {
  normalize_(augmented(image, key), chw);
  if (recipe_.erasing.probability <= 0) return;
  RandomStream random = key.stream(AugmentStage::Erasing);
  random_erase(chw, Image::kChannels, image_size(), image_size(), recipe_.erasing, random);
}

}  // namespace ablate
