#pragma once

#include <cstdint>

#include "datasets/label_map.h"
#include "datasets/recipe.h"
#include "datasets/transforms.h"

namespace ablate {

/// An image and the labels of its pixels, of one size.
struct LabelledImage {
  Image image;
  LabelMap labels;
};

/// Image and labels to network input and target, in training: resize to a frame of random size, cut
/// a random square, mirror, distort colours, normalise, pad to the right and below with zeros and
/// LabelMap::kIgnore. Labels are moved, never blended. Pure; threads may share one.
class DenseTrainTransform {
 public:
  /// recipe.dense must be set.
  DenseTrainTransform(const AugmentRecipe& recipe, const Normalization& statistics);

  /// `chw` takes 3 * image_size^2 floats, `target` image_size^2 labels.
  void operator()(const LabelledImage& sample, const AugmentKey& key, float* chw,
                  std::uint8_t* target) const;

  /// The 8-bit pair before normalisation and padding: at most image_size on a side.
  LabelledImage augmented(const LabelledImage& sample, const AugmentKey& key) const;

 private:
  AugmentRecipe recipe_;
  Normalizer normalize_;
};

/// Image to network input in evaluation: resized into the frame, normalised; its labels stay as
/// they are. Pure; threads may share one.
class DenseEvalTransform {
 public:
  DenseEvalTransform(const AugmentRecipe& recipe, const Normalization& statistics);

  Size size_of(const Image& image) const;
  /// A square with the frame's short side: what stands in where a batch has no image.
  Size smallest_input() const { return {recipe_.frame_short, recipe_.frame_short}; }
  /// `chw` takes 3 * height * width floats of size_of(image).
  void operator()(const Image& image, float* chw) const;

 private:
  DenseRecipe recipe_;
  Normalizer normalize_;
};

}  // namespace ablate
