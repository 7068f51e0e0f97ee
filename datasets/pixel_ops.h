#pragma once

#include "datasets/image.h"

namespace ablate {

// The photometric operations of RandAugment, in place, each bit for bit what Pillow's ImageOps and
// ImageEnhance give.

/// Stretches every channel to the full range: v -> trunc((v - low) * 255 / (high - low)).
void autocontrast(Image& image);
/// Flattens the histogram of every channel (a channel of fewer than 256 pixels may stay as it is).
void equalize(Image& image);
/// v -> 255 - v.
void invert(Image& image);
/// Keeps the upper `bits` bits, 0 to 8.
void posterize(Image& image, int bits);
/// Inverts values >= `threshold`.
void solarize(Image& image, int threshold);
/// Adds `add` to values < 128, up to 255.
void solarize_add(Image& image, int add);

// trunc(clip(d + factor * (v - d), 0, 255)) in single precision, where d is
void adjust_color(Image& image, double factor);       ///< the pixel's grey value
void adjust_contrast(Image& image, double factor);    ///< the image's mean grey value
void adjust_brightness(Image& image, double factor);  ///< 0
/// the image smoothed by a 3x3 kernel; `spare` is room to work in
void adjust_sharpness(Image& image, double factor, Image& spare);

}  // namespace ablate
