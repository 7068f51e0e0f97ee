#pragma once

#include "datasets/geometry.h"
#include "datasets/image.h"
#include "datasets/label_map.h"

namespace ablate {

/// The largest size of a width x height image's proportions within a frame whose long and short
/// sides lie along the image's: each side trunc(side * factor + 0.5).
Size size_in_frame(int width, int height, int frame_long, int frame_short);

/// The part `window` of the image resized to width x height, bilinear between pixel centres without
/// antialiasing: what OpenCV's INTER_LINEAR gives for 8-bit images, weights of 11 bits.
Image linear_resize(const Image& image, int width, int height, const Box& window);

/// The part `window` of the labels resized to width x height; each pixel takes the one at
/// floor(place * old / new), OpenCV's INTER_NEAREST.
LabelMap nearest_resize(const LabelMap& labels, int width, int height, const Box& window);

}  // namespace ablate
