#pragma once

#include "datasets/image.h"
#include "runner/core/random.h"

namespace ablate {

// Distortions of colour of 8-bit images, in place, with the roundings of mmsegmentation on OpenCV.

/// clip(v * factor + offset, 0, 255), cut to an integer.
void scale_values(Image& image, float factor, float offset);

/// Hue 0 to 179 (2 degrees each), saturation and value 0 to 255, in place of red, green, blue:
/// OpenCV's COLOR_RGB2HSV, and back.
void rgb_to_hsv(Image& image);
void hsv_to_rgb(Image& image);

/// Through HSV: saturation multiplied as by scale_values, or hue turned by `steps`.
void scale_saturation(Image& image, float factor);
void turn_hue(Image& image, int steps);

/// Photometric distortion (Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016) as
/// mmsegmentation has it. Each with probability 1/2: brightness + U(-32, 32), contrast * U(0.5,
/// 1.5), saturation * U(0.5, 1.5), hue + an integer in [-18, 17]; contrast comes before or after
/// the other two, with equal chances. Draws in that order: whether, and then how much; the place
/// of contrast after brightness.
void distort_colors(Image& image, RandomStream& random);

}  // namespace ablate
