#pragma once

#include <string_view>
#include <vector>

#include "datasets/affine.h"
#include "datasets/image.h"
#include "runner/core/random.h"

namespace ablate {

/// The fifteen operations of timm's RandAugment.
enum class AugmentOp {
  AutoContrast,
  Equalize,
  Invert,
  Rotate,
  Posterize,
  Solarize,
  SolarizeAdd,
  Color,
  Contrast,
  Brightness,
  Sharpness,
  ShearX,
  ShearY,
  TranslateX,
  TranslateY,
};
inline constexpr int kAugmentOps = 15;

/// RandAugment (Cubuk et al. 2020) as timm has it: `layers` operations drawn with replacement, each
/// applied with `probability` at level clip(N(magnitude, magnitude_std), 0, magnitude_max) of 10.
struct RandAugment {
  double magnitude = 10;
  double magnitude_std = 0;
  double magnitude_max = 10;
  double probability = 0.5;
  int layers = 2;
  bool increasing = false;  ///< every operation grows stronger with the level
};

/// Reads timm's "rand-m9-mstd0.5-inc1": after "rand", any of m (magnitude), mstd, mmax, n (layers),
/// p (probability), inc. Throws SpecError that lists them; also for t<name>, timm's other choices
/// of operations and their weights.
RandAugment parse_randaugment(std::string_view text);

/// One drawn operation.
struct AugmentDraw {
  AugmentOp op;
  bool applied;
  double level;   ///< 0 to 10
  bool negative;  ///< sign of operations that have two directions

  bool operator==(const AugmentDraw&) const = default;
};

/// Draws per layer, always all of them: operation, applied, level, sign.
std::vector<AugmentDraw> draw_randaugment(const RandAugment& settings, RandomStream& random);

/// The operation's argument at a level: degrees, bits, threshold, addend, blend factor, shear, or
/// shift as a share of the side; 0 for operations without one.
double augment_argument(AugmentOp op, double level, bool negative, bool increasing);

/// Applies one operation; geometric ones resample bicubically and fill with `fill`.
void apply_augment_op(Image& image, AugmentOp op, double argument, const Rgb& fill);
/// The same; `spare` is room to work in.
void apply_augment_op(Image& image, AugmentOp op, double argument, const Rgb& fill, Image& spare);

/// Draws and applies.
void randaugment(Image& image, const RandAugment& settings, const Rgb& fill, RandomStream& random);
void randaugment(Image& image, const RandAugment& settings, const Rgb& fill, RandomStream& random,
                 Image& spare);

}  // namespace ablate
