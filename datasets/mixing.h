#pragma once

#include <cstdint>

#include "datasets/image.h"
#include "runner/core/random.h"

namespace ablate {

/// Mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019), timm's batch mode within groups of
/// consecutive images: sample i of a group of g is mixed with sample g-1-i.
struct Mixing {
  double mixup = 0;                 ///< alpha of Beta(alpha, alpha); 0 switches mixup off
  double cutmix = 0;                ///< the same for cutmix
  double probability = 1;           ///< of mixing a group at all
  double switch_probability = 0.5;  ///< of cutmix when both are on

  bool enabled() const { return (mixup > 0 || cutmix > 0) && probability > 0; }
};

/// What happens to one group.
struct MixPlan {
  double lambda = 1;  ///< weight of a sample's own label; 1 - lambda is its partner's
  bool cutmix = false;
  Box box;  ///< pixels that come from the partner under cutmix
};

/// The plan of mixing group `group` of the global batch in `step`, for images of height x width.
/// Draws from Purpose::Mix (group, step): whether, which, lambda, then row and column of the box
/// centre.
MixPlan draw_mix(const Mixing& settings, std::uint64_t seed, std::uint64_t group,
                 std::uint32_t step, int height, int width);

/// Cutmix with a drawn lambda and box centre: sides trunc(side * sqrt(1 - lambda)), clipped to the
/// image; the plan's lambda is corrected to the share of pixels that stay.
MixPlan cutmix_plan(double lambda, int center_y, int center_x, int height, int width);

/// Mixes a group in place; images are (group, channels, height, width). The middle sample of an odd
/// group stays as it is.
void apply_mix(float* images, int group, int channels, int height, int width, const MixPlan& plan);

/// Soft targets (group, classes) of a mixed group: label smoothing s puts s/K on every class and
/// 1 - s more on the label, own and partner's targets are then weighted by lambda.
void mixed_targets(const std::int64_t* labels, int group, int classes, double smoothing,
                   const MixPlan& plan, float* targets);

}  // namespace ablate
