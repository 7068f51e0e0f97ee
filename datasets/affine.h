#pragma once

#include <array>
#include <cstdint>

#include "datasets/image.h"

namespace ablate {

/// (a, b, c, d, e, f): the point (x, y) of the output is taken from (a x + b y + c, d x + e y + f)
/// of the input; pixel centres lie at half-integers.
using AffineMatrix = std::array<double, 6>;
using Rgb = std::array<std::uint8_t, Image::kChannels>;

/// Bicubic (a = -1) resampling on the same canvas, bit for bit Pillow's Image.transform(AFFINE,
/// BICUBIC, fillcolor): centres outside the image take `fill`, taps are clamped to the image, the
/// result is truncated to 8 bits.
Image affine_bicubic(const Image& image, const AffineMatrix& matrix, const Rgb& fill);
/// The same in place; `spare` is room to work in.
void affine_bicubic(Image& image, const AffineMatrix& matrix, const Rgb& fill, Image& spare);

/// The matrix of Pillow's Image.rotate(degrees): counter-clockwise about the centre.
AffineMatrix rotation_matrix(double degrees, int width, int height);

}  // namespace ablate
