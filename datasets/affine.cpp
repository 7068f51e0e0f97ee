#include "datasets/affine.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "runner/core/error.h"

namespace ablate {

namespace {

constexpr int kChannels = Image::kChannels;

/// Cubic convolution with a = -1 between `b` (t = 0) and `c` (t = 1).
double cubic(double a, double b, double c, double d, double t) {
  const double p2 = -a + c;
  const double p3 = 2 * (a - b) + c - d;
  const double p4 = -a + b - c + d;
  return b + t * (p2 + t * (p3 + t * p4));
}

/// The four taps along one axis around a coordinate, clamped to [0, size).
struct AxisTaps {
  std::array<int, 4> index;
  double fraction;

  AxisTaps(double coordinate, int size) {
    const double shifted = coordinate - 0.5;
    const double floor = std::floor(shifted);
    fraction = shifted - floor;
    const int first = static_cast<int>(floor) - 1;
    for (int k = 0; k < 4; ++k) {
      index[static_cast<std::size_t>(k)] = std::clamp(first + k, 0, size - 1);
    }
  }
};

std::uint8_t to_pixel(double value) {
  return static_cast<std::uint8_t>(std::clamp(value, 0.0, 255.0));
}

void sample(const Image& image, const AxisTaps& x, const AxisTaps& y, std::uint8_t* out) {
  const auto along_row = [&](int row, int c) {
    const std::uint8_t* p = image.row(row) + c;
    const auto at = [&](std::size_t k) { return static_cast<double>(p[kChannels * x.index[k]]); };
    // Exact short cuts where a fraction is 0, as in every shear and shift along one axis.
    return x.fraction == 0 ? at(1) : cubic(at(0), at(1), at(2), at(3), x.fraction);
  };
  for (int c = 0; c < kChannels; ++c) {
    double value;
    if (y.fraction == 0) {
      value = along_row(y.index[1], c);
    } else {
      value = cubic(along_row(y.index[0], c), along_row(y.index[1], c), along_row(y.index[2], c),
                    along_row(y.index[3], c), y.fraction);
    }
    out[c] = to_pixel(value);
  }
}

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
  const auto [a, b, c, d, e, f] = matrix;
  Image out;
  out.reshape(image.width, image.height);
  for (int row = 0; row < out.height; ++row) {
    std::uint8_t* pixel = out.row(row);
    for (int column = 0; column < out.width; ++column, pixel += kChannels) {
      const double x = a * (column + 0.5) + b * (row + 0.5) + c;
      const double y = d * (column + 0.5) + e * (row + 0.5) + f;
      if (x < 0 || x >= image.width || y < 0 || y >= image.height) {
        std::copy(fill.begin(), fill.end(), pixel);
      } else {
        sample(image, AxisTaps(x, image.width), AxisTaps(y, image.height), pixel);
      }
    }
  }
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
