#include "methods/kernels/depthwise.h"

#include <vector>

namespace ablate::kernels::reference {
namespace {

/// Calls visit(tap, from) for the places under the kernel at (y, x).
template <typename Visit>
void for_each_tap(const DepthwiseShape& shape, std::int64_t y, std::int64_t x, const Visit& visit) {
  const std::int64_t reach = shape.side / 2;
  for (std::int64_t tap = 0; tap < shape.taps(); ++tap) {
    const std::int64_t row = y + tap / shape.side - reach, column = x + tap % shape.side - reach;
    if (row < 0 || row >= shape.height || column < 0 || column >= shape.width) continue;
    visit(tap, row * shape.width + column);
  }
}

template <typename T>
double at(const TokenMap<T>& map, std::int64_t image, std::int64_t place, std::int64_t channel) {
  return to_float(map.data[image * map.image + place * map.stride + channel]);
}

}  // namespace

void depthwise(const Depthwise& a) {
  const DepthwiseShape& shape = a.shape;
  for (std::int64_t image = 0; image < shape.batch; ++image) {
    for (std::int64_t place = 0; place < shape.height * shape.width; ++place) {
      for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
        const std::int64_t kernel = channel % shape.kernels;
        double sum = a.bias ? a.bias[kernel] : 0.0;
        if (a.base.data) sum += at(a.base, image, place, channel);
        for_each_tap(shape, place / shape.width, place % shape.width,
                     [&](std::int64_t tap, std::int64_t from) {
                       const std::int64_t turned = a.flipped ? shape.taps() - 1 - tap : tap;
                       sum +=
                           a.kernel[kernel * shape.taps() + turned] * at(a.x, image, from, channel);
                     });
        a.y.data[image * a.y.image + place * a.y.stride + channel] =
            from_float<bfloat16>(static_cast<float>(sum));
      }
    }
  }
}

void depthwise_kernel_gradient(const DepthwiseKernelGradient& a) {
  const DepthwiseShape& shape = a.shape;
  const auto kernels = static_cast<std::size_t>(shape.kernels),
             taps = static_cast<std::size_t>(shape.taps());
  std::vector<double> d_kernel(kernels * taps), d_bias(kernels);
  for (std::int64_t image = 0; image < shape.batch; ++image) {
    for (std::int64_t place = 0; place < shape.height * shape.width; ++place) {
      for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
        const auto kernel = static_cast<std::size_t>(channel % shape.kernels);
        const double dy = at(a.dy, image, place, channel);
        d_bias[kernel] += dy;
        for_each_tap(shape, place / shape.width, place % shape.width,
                     [&](std::int64_t tap, std::int64_t from) {
                       d_kernel[kernel * taps + static_cast<std::size_t>(tap)] +=
                           dy * at(a.x, image, from, channel);
                     });
      }
    }
  }
  for (std::size_t i = 0; i < d_kernel.size(); ++i) {
    a.d_kernel[i] = static_cast<float>(a.d_kernel[i] + d_kernel[i]);
  }
  for (std::size_t i = 0; a.d_bias && i < kernels; ++i) {
    a.d_bias[i] = static_cast<float>(a.d_bias[i] + d_bias[i]);
  }
}

}  // namespace ablate::kernels::reference
