#include "datasets/transforms.h"

#include <algorithm>
#include <utility>

#include "datasets/geometry.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

CropPlan eval_plan(Size image, const AugmentRecipe& recipe) {
  const int size = recipe.image_size;
  if (std::min(image.width, image.height) == recipe.eval_resize) {
    return {
        .source = center_crop_box(image.width, image.height, size), .resized = {}, .padded = {}};
  }
  const Size target = resized_size(image.width, image.height, recipe.eval_resize);
  const ResizedWindow resized{image, target, center_crop_box(target.width, target.height, size),
                              recipe.interpolation};
  return {.source = source_box(resized), .resized = resized, .padded = {}};
}

/// Makes memory.crop of the plan's source, which lies in `image` from (left, top) on.
void cut(const Image& image, int left, int top, const CropPlan& plan, int pad,
         SampleMemory& memory) {
  if (plan.resized) return memory.resizer(*plan.resized, image, left, top, memory.crop);
  if (plan.padded) {
    const Box& window = *plan.padded;
    return padded_crop(image, window.left, window.top, window.width, pad, memory.crop);
  }
  crop(image, {left, top, plan.source.width, plan.source.height}, memory.crop);
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

CropPlan EvalTransform::plan(Size image) const { return eval_plan(image, recipe_); }

void EvalTransform::operator()(const Image& source, const CropPlan& plan, SampleMemory& memory,
                               float* chw) const {
  cut(source, 0, 0, plan, recipe_.pad, memory);
  normalize_(memory.crop, chw);
}

void EvalTransform::operator()(const Image& image, float* chw) const {
  SampleMemory memory;
  const CropPlan taken = plan({image.width, image.height});
  cut(image, taken.source.left, taken.source.top, taken, recipe_.pad, memory);
  normalize_(memory.crop, chw);
}

TrainTransform::TrainTransform(const AugmentRecipe& recipe, const Normalization& statistics)
    : recipe_(recipe), normalize_(statistics), fill_(mean_color(statistics)) {}

CropPlan TrainTransform::plan(Size image, const AugmentKey& key) const {
  if (recipe_.crop == CropMode::None) return eval_plan(image, recipe_);
  RandomStream random = key.stream(AugmentStage::Crop);
  const int size = recipe_.image_size;
  if (recipe_.crop == CropMode::Pad) {
    return {.source = {0, 0, image.width, image.height},
            .resized = {},
            .padded = random_crop_box(image.width, image.height, size, recipe_.pad, random)};
  }
  const Box box = random_resized_crop_box(image.width, image.height, recipe_.resized, random);
  return {.source = box,
          .resized =
              ResizedWindow{
                  {box.width, box.height}, {size, size}, {0, 0, size, size}, recipe_.interpolation},
          .padded = {}};
}

/// Flips and changes memory.crop.
void TrainTransform::augment(const AugmentKey& key, SampleMemory& memory) const {
  if (key.stream(AugmentStage::Flip).chance(recipe_.flip)) hflip(memory.crop);
  if (!recipe_.randaugment) return;
  RandomStream random = key.stream(AugmentStage::RandAugment);
  randaugment(memory.crop, *recipe_.randaugment, fill_, random, memory.spare);
}

Image TrainTransform::augmented(const Image& image, const AugmentKey& key) const {
  SampleMemory memory;
  const CropPlan taken = plan({image.width, image.height}, key);
  cut(image, taken.source.left, taken.source.top, taken, recipe_.pad, memory);
  augment(key, memory);
  return std::move(memory.crop);
}

void TrainTransform::finish(const AugmentKey& key, const SampleMemory& memory, float* chw) const {
  normalize_(memory.crop, chw);
  if (recipe_.erasing.probability <= 0) return;
  RandomStream random = key.stream(AugmentStage::Erasing);
  random_erase(chw, Image::kChannels, image_size(), image_size(), recipe_.erasing, random);
}

void TrainTransform::operator()(const Image& source, const CropPlan& plan, const AugmentKey& key,
                                SampleMemory& memory, float* chw) const {
  cut(source, 0, 0, plan, recipe_.pad, memory);
  augment(key, memory);
  finish(key, memory, chw);
}

void TrainTransform::operator()(const Image& image, const AugmentKey& key, float* chw) const {
  SampleMemory memory;
  memory.crop = augmented(image, key);
  finish(key, memory, chw);
}

}  // namespace ablate
