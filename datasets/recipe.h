#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/dense_recipe.h"
#include "datasets/erasing.h"
#include "datasets/geometry.h"
#include "datasets/mixing.h"
#include "datasets/randaugment.h"
#include "datasets/resize.h"

namespace ablate {

class Params;

/// How training images get their place in the network's square input.
enum class CropMode {
  None,     ///< as in evaluation
  Pad,      ///< a random window of the image padded by black
  Resized,  ///< a random part of the image, resized
};

/// Everything that turns decoded images into network input; part of a run's identity. Mean and
/// standard deviation come from the data set, label smoothing from the task.
struct AugmentRecipe {
  int image_size = 0;

  CropMode crop = CropMode::None;
  int pad = 4;  ///< of CropMode::Pad
  ResizedCrop resized;
  Filter interpolation = Filter::Bicubic;  ///< of CropMode::Resized and of evaluation
  double flip = 0;                         ///< probability of mirroring
  std::optional<RandAugment> randaugment;
  Erasing erasing;
  Mixing mixing;
  int repeated = 1;  ///< draws of one image, see repeated_draw.h

  int eval_resize = 0;  ///< short side of evaluation images before the centre crop

  /// Of images whose pixels have labels; of the rest image_size and flip alone apply to them.
  std::optional<DenseRecipe> dense;
};

/// Version of what a recipe does to an image: raised when the same recipe would give other pixels.
inline constexpr int kAugmentSemantics = 2;

/// The names a spec may use, each a set of defaults for all keys: "none", "cifar" (padded crop,
/// flip), "cifar_strong" (that, RandAugment, erasing, mixup, cutmix), "deit" (Touvron et al. 2021);
/// kDenseAugmentation with keys of its own.
const std::vector<std::string>& augmentation_names();

/// Reads the keys of an `augmentation` table. Does not call finish(). Throws SpecError.
AugmentRecipe read_augmentation(std::string_view name, Params& params, int default_image_size);

}  // namespace ablate
