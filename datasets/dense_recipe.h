#pragma once

#include <string_view>

namespace ablate {

class Params;

/// The augmentation whose recipe has a DenseRecipe.
inline constexpr std::string_view kDenseAugmentation = "segmentation";

/// How images and the labels of their pixels become network input: the pipeline of mmsegmentation's
/// ADE20K configurations. In training: resize by a random ratio, cut a square, mirror, distort
/// colours, normalise, pad; in evaluation the resize alone.
struct DenseRecipe {
  /// Images are resized, their proportions kept, to the largest size within long x short.
  int frame_long = 0, frame_short = 0;
  double ratio_low = 0.5, ratio_high = 2.0;  ///< of the frame, in training
  /// A square is drawn again, up to ten times, while one class fills this share of it or more; 1
  /// takes the first.
  double cat_max_ratio = 0.75;
  bool photometric = true;  ///< distortion of brightness, contrast, saturation and hue
};

/// Reads the keys of that augmentation: those of DenseRecipe, `image_size`, the side of the square,
/// and `flip`. Does not call finish(). Throws SpecError.
DenseRecipe read_dense_recipe(Params& params, int default_image_size, int& image_size,
                              double& flip);

}  // namespace ablate
