#pragma once

#include "runner/core/random.h"

namespace ablate {

/// What an erased element becomes: its own draw from N(0, 1), zero (the data set's mean), or one
/// draw from N(0, 1) a channel.
enum class ErasingMode { Pixel, Const, Rand };

struct Erasing {
  double probability = 0;  ///< of erasing a box at all
  ErasingMode mode = ErasingMode::Pixel;
};

/// Random erasing (Zhong et al. 2020) with timm's ranges on one normalised image (channels, height,
/// width): up to ten tries of a box of 2 % to 1/3 of the area with log-uniform aspect ratio in
/// [0.3, 1/0.3], strictly smaller than the image.
/// Draws: whether; per try area, aspect; top, left; the fill in memory order.
void random_erase(float* chw, int channels, int height, int width, const Erasing& settings,
                  RandomStream& random);

}  // namespace ablate
