#pragma once

#include <cmath>

#include "datasets/device/canvas.h"

namespace ablate::augment {

// Pillow's bicubic affine transform as datasets/affine.h has it, for a team: the same bits for the
// same matrix.

/// (a, b, c, d, e, f), as AffineMatrix.
struct Affine {
  double a, b, c, d, e, f;
};

/// Python's round(value, 15) for |value| <= 1: the decimal nearest to the exact value.
ABLATE_HOST_DEVICE double round_15_decimals(double value) {
  constexpr double kScale = 1e15;
  const double scaled = value * kScale;
  const double lost = ::fma(value, kScale, -scaled);  // exactly what the product was rounded by
  double whole = ::rint(scaled);
  const double rest = scaled - whole;
  if (rest == 0.5 && lost > 0) whole += 1;
  if (rest == -0.5 && lost < 0) whole -= 1;
  return whole / kScale;  // both below 2^53: the double nearest to the decimal
}

/// Pillow's Image.rotate(degrees), |degrees| <= 360: counter-clockwise about the centre.
ABLATE_HOST_DEVICE Affine rotation(double degrees, int side) {
  constexpr double kPi = 3.141592653589793;
  double turn = ::fmod(degrees, 360.0);
  if (turn < 0) turn += 360.0;
  const double angle = -(turn * (kPi / 180.0));
  const double cosine = round_15_decimals(::cos(angle));
  const double sine = round_15_decimals(::sin(angle));
  const double minus_sine = -sine;
  const double middle = side / 2.0;
  return {cosine,     sine,   cosine * -middle + sine * -middle + 0.0 + middle,
          minus_sine, cosine, minus_sine * -middle + cosine * -middle + 0.0 + middle};
}

/// The four taps along one axis around a coordinate >= 0, clamped to [0, size).
struct AxisTaps {
  int index[4];
  double fraction;

  ABLATE_HOST_DEVICE AxisTaps(double coordinate, int size) {
    const double shifted = coordinate - 0.5;
    const int floor = shifted < 0 ? -1 : static_cast<int>(shifted);
    fraction = shifted - floor;
    for (int k = 0; k < 4; ++k) {
      const int tap = floor - 1 + k;
      index[k] = tap < 0 ? 0 : tap >= size ? size - 1 : tap;
    }
  }
};

/// Cubic convolution with a = -1 between `b` (t = 0) and `c` (t = 1).
ABLATE_HOST_DEVICE double cubic(double a, double b, double c, double d, double t) {
  const double p2 = -a + c, p3 = 2 * (a - b) + c - d, p4 = -a + b - c + d;
  return b + t * (p2 + t * (p3 + t * p4));
}

/// The same of integers, whose differences are exact.
ABLATE_HOST_DEVICE double cubic(int a, int b, int c, int d, double t) {
  const double p2 = c - a, p3 = 2 * (a - b) + c - d, p4 = b - a + d - c;
  return b + t * (p2 + t * (p3 + t * p4));
}

/// Interpolates one channel along one source row; at a fraction of 0 cubic() is exactly its `b`.
ABLATE_HOST_DEVICE double sample_row(const std::uint8_t* row, const AxisTaps& x) {
  const int near = row[kChannels * x.index[1]];
  if (x.fraction == 0) return near;
  return cubic(int{row[kChannels * x.index[0]]}, near, int{row[kChannels * x.index[2]]},
               int{row[kChannels * x.index[3]]}, x.fraction);
}

ABLATE_HOST_DEVICE double sample(const std::uint8_t* channel, int stride, const AxisTaps& x,
                                 const AxisTaps& y) {
  const double near = sample_row(channel + y.index[1] * stride, x);
  if (y.fraction == 0) return near;
  return cubic(sample_row(channel + y.index[0] * stride, x), near,
               sample_row(channel + y.index[2] * stride, x),
               sample_row(channel + y.index[3] * stride, x), y.fraction);
}

/// Takes each pixel from where the matrix points; `fill` where that is outside.
template <typename Team>
ABLATE_HOST_DEVICE void transform(const Team& team, Canvas& canvas, const Affine& matrix,
                                  const std::uint8_t* fill) {
  const int side = canvas.side;
  share_pixels(team, canvas, [&](const std::uint8_t* rgb, int y, int x) {
    std::uint8_t* out = canvas.spare + (rgb - canvas.pixels);
    const double from_x = matrix.a * (x + 0.5) + matrix.b * (y + 0.5) + matrix.c;
    const double from_y = matrix.d * (x + 0.5) + matrix.e * (y + 0.5) + matrix.f;
    if (from_x < 0 || from_x >= side || from_y < 0 || from_y >= side) {
      for (int c = 0; c < kChannels; ++c) out[c] = fill[c];
      return;
    }
    const AxisTaps across(from_x, side), down(from_y, side);
    for (int c = 0; c < kChannels; ++c) {
      const auto value =
          static_cast<int>(sample(canvas.pixels + c, kChannels * side, across, down));
      out[c] = static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
    }
  });
  canvas.swap();
  team.sync();
}

}  // namespace ablate::augment
