#pragma once

#include <cmath>
#include <cstdint>

#include "datasets/image_kernels.h"
#include "datasets/resize.h"
#include "methods/kernels/host_device.h"

namespace ablate {

// Pillow's antialiased filters, for host and device: every weight has the same bits on both.

/// The source pixels of one output pixel.
struct TapRange {
  int first, count;
};

/// Resampling along one axis from `in` to `out` pixels.
struct AxisFilter {
  Filter filter;
  int in;
  double scale, stretch, support;

  ABLATE_HOST_DEVICE AxisFilter(int from, int to, Filter kind)
      : filter(kind),
        in(from),
        scale(static_cast<double>(from) / to),
        stretch(scale < 1.0 ? 1.0 : scale),
        support((kind == Filter::Bicubic ? 2.0 : 1.0) * stretch) {}

  ABLATE_HOST_DEVICE double center(int o) const { return (o + 0.5) * scale; }

  ABLATE_HOST_DEVICE TapRange range(int o) const {
    const int low = static_cast<int>(center(o) - support + 0.5);
    const int high = static_cast<int>(center(o) + support + 0.5);
    const int first = low < 0 ? 0 : low;
    return {first, (high < in ? high : in) - first};
  }
  /// No output pixel has more taps.
  ABLATE_HOST_DEVICE int most_taps() const { return static_cast<int>(::ceil(support)) * 2 + 1; }

  /// Weight of source pixel `tap`, before the sum of an output pixel's weights is made 1.
  ABLATE_HOST_DEVICE double raw_weight(int o, int tap) const {
    const double x = ::fabs((tap - center(o) + 0.5) * (1.0 / stretch));
    if (filter == Filter::Bilinear) return x < 1.0 ? 1.0 - x : 0.0;
    constexpr double a = -0.5;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
  }
};

/// A weight with kTapBits fraction bits, halves away from zero.
ABLATE_HOST_DEVICE std::int32_t fixed_weight(double weight) {
  const double scaled = weight * (1 << kTapBits);
  return static_cast<std::int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

}  // namespace ablate
