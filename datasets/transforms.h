#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "datasets/image.h"
#include "datasets/recipe.h"
#include "runner/core/random.h"

namespace ablate {

/// The random stages of training augmentation. Every stage has a stream of its own, so switching
/// one off leaves the draws of the others as they are. Values are part of results: only append.
enum class AugmentStage : std::uint32_t {
  Crop = 0,
  Flip = 1,
  RandAugment = 2,
  Erasing = 3,
  Scale = 4,        ///< size of images whose pixels have labels
  Photometric = 5,  ///< their colours
};

/// What the augmentation of one drawn sample depends on, and nothing else.
struct AugmentKey {
  std::uint64_t seed = 0;
  std::uint64_t sample = 0;  ///< of sample_key()

  RandomStream stream(AugmentStage stage) const {
    return {seed, Purpose::Augment, sample, static_cast<std::uint32_t>(stage)};
  }
};

/// Packs a draw into one word without collisions: repetition (4 bits), epoch (20 bits), index (40
/// bits).
std::uint64_t sample_key(std::uint64_t epoch, std::uint64_t index, std::uint32_t repetition = 0);

/// The mean as a colour, rounded: what geometric operations fill with.
Rgb mean_color(const Normalization& statistics);

/// 8-bit RGB to normalised float CHW: (v / 255 - mean) / std in single precision, by table.
class Normalizer {
 public:
  explicit Normalizer(const Normalization& statistics);
  /// `chw` holds 3 * image.height * image.width floats.
  void operator()(const Image& image, float* chw) const;

 private:
  std::array<std::array<float, 256>, Image::kChannels> table_;
};

/// What the crop of a sample takes of an image, and what becomes of it.
struct CropPlan {
  Box source;  ///< all that is needed of the image
  /// The source resampled; relative to an image that `source` is source_box() of.
  std::optional<ResizedWindow> resized;
  std::optional<Box> padded;  ///< a window of the source surrounded by AugmentRecipe::pad
};

/// What a thread keeps from sample to sample, so that making one allocates nothing.
struct SampleMemory {
  Image part;  ///< for callers: CropPlan::source of an image
  Image crop, spare;
  Resizer resizer;
};

/// Decoded image to network input, in evaluation: resize the short side to eval_resize (left out
/// where it already is), centre crop, normalise. Pure; threads may share one.
class EvalTransform {
 public:
  EvalTransform(const AugmentRecipe& recipe, const Normalization& statistics);

  int image_size() const { return recipe_.image_size; }
  /// `chw` takes 3 * image_size^2 floats.
  void operator()(const Image& image, float* chw) const;

  CropPlan plan(Size image) const;
  /// From the pixels of the plan's source alone.
  void operator()(const Image& source, const CropPlan& plan, SampleMemory& memory,
                  float* chw) const;

 private:
  AugmentRecipe recipe_;
  Normalizer normalize_;
};

/// Decoded image to network input, in training: crop, flip, RandAugment (fill colour: the rounded
/// mean), normalise, erase; mixing follows on whole groups (mixing.h). Pure; threads may share one.
class TrainTransform {
 public:
  TrainTransform(const AugmentRecipe& recipe, const Normalization& statistics);

  const AugmentRecipe& recipe() const { return recipe_; }
  int image_size() const { return recipe_.image_size; }
  /// `chw` takes 3 * image_size^2 floats.
  void operator()(const Image& image, const AugmentKey& key, float* chw) const;

  CropPlan plan(Size image, const AugmentKey& key) const;
  /// From the pixels of the plan's source alone.
  void operator()(const Image& source, const CropPlan& plan, const AugmentKey& key,
                  SampleMemory& memory, float* chw) const;

  /// The 8-bit image before normalisation.
  Image augmented(const Image& image, const AugmentKey& key) const;

 private:
  void augment(const AugmentKey& key, SampleMemory& memory) const;
  void finish(const AugmentKey& key, const SampleMemory& memory, float* chw) const;

  AugmentRecipe recipe_;
  Normalizer normalize_;
  Rgb fill_;
};

}  // namespace ablate
