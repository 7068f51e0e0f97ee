#pragma once

#include "datasets/image.h"

namespace ablate {

enum class Filter { Bilinear, Bicubic };

/// Antialiased resampling to `width` x `height`, bit for bit what Image.resize of Pillow 9 gives
/// for 8-bit images: separable, rows first, fixed-point weights with 22 fraction bits, each pass
/// rounded to 8 bits, a pass that keeps its size left out. Bicubic has a = -0.5. (Pillow 13 takes
/// the cheaper pass first, which for tall images differs by one level here and there.)
Image resize(const Image& image, int width, int height, Filter filter);

/// The same for the part of `image` inside `box`: equal to cropping first and resizing then, so no
/// filter tap leaves the box. `box` must lie inside the image.
Image resize(const Image& image, const Box& box, int width, int height, Filter filter);

}  // namespace ablate
