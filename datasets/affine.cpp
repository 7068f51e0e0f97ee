#include "datasets/affine.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>
#include <vector>

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

Image affine_bicubic(const Image& image, const AffineMatrix& matrix, const Rgb& fill) {
  std::vector<std::uint8_t> readable(image.pixels.size() + 1);
  std::copy(image.pixels.begin(), image.pixels.end(), readable.begin());
  const AffineRow source{readable.data(), image.width, image.height, matrix, fill};
  Image out;
  out.reshape(image.width, image.height);
  for (int y = 0; y < out.height; ++y) image_kernels().affine_row(source, y, out.row(y));
  return out;
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
