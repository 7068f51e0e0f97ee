#include "datasets/affine.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>
#include <utility>

#include "datasets/image_kernels.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

/// Rounds to 15 decimals as Python's round(value, 15): exactly, through the decimal text.
double round_15_decimals(double value) {
  std::array<char, 32> text;
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, 15);
  ABLATE_CHECK(end.ec == std::errc{});
  double rounded = 0;
  std::from_chars(text.data(), end.ptr, rounded);
  return rounded;
}

}  // namespace

void affine_bicubic(Image& image, const AffineMatrix& matrix, const Rgb& fill, Image& spare) {
  image.pixels.push_back(0);  // one byte behind the last is read
  const AffineRow source{image.pixels.data(), image.width, image.height, matrix, fill};
  spare.reshape(image.width, image.height);
  for (int y = 0; y < spare.height; ++y) image_kernels().affine_row(source, y, spare.row(y));
  image.pixels.pop_back();
  std::swap(image, spare);
}

Image affine_bicubic(const Image& image, const AffineMatrix& matrix, const Rgb& fill) {
  Image result = image, spare;
  affine_bicubic(result, matrix, fill, spare);
  return result;
}

AffineMatrix rotation_matrix(double degrees, int width, int height) {
  double turn = std::fmod(degrees, 360.0);
  if (turn < 0) turn += 360.0;
  const double angle = -(turn * (std::numbers::pi / 180.0));
  const double cosine = round_15_decimals(std::cos(angle));
  const double sine = round_15_decimals(std::sin(angle));
  const double minus_sine = round_15_decimals(-std::sin(angle));
  const double x = width / 2.0, y = height / 2.0;
  return {cosine,     sine,   cosine * -x + sine * -y + 0.0 + x,
          minus_sine, cosine, minus_sine * -x + cosine * -y + 0.0 + y};
}

}  // namespace ablate
