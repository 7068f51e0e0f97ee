#pragma once

#include <cstddef>
#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

// Convolutions of every channel by itself, stride 1, which keep the size of the map (zeros beyond
// its borders), on maps that lie as rows of tokens: what a linear attention adds to its output.

/// `kernels` divides channels: channel c has kernel c % kernels. Channels and kernels are multiples
/// of 8; side is 3 or 5.
struct DepthwiseShape {
  std::int64_t batch = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 0;
  std::int64_t kernels = 0;
  int side = 5;

  std::int64_t taps() const { return std::int64_t{side} * side; }
};

/// A map (B, H, W, C): the channels of a place are dense. Strides in elements, multiples of 8; data
/// aligned to 16 bytes.
template <typename T>
struct TokenMap {
  T* data = nullptr;
  std::int64_t stride = 0;  ///< between neighbouring places, row by row
  std::int64_t image = 0;   ///< between images
};

/// y = base + bias + sum over taps of kernel x, summed in float and rounded once. With `flipped`
/// the kernel is turned by 180 degrees: then x is the gradient of an output, y that of the input.
/// Reads x and base and writes y once, but for what neighbours read again from caches.
struct Depthwise {
  DepthwiseShape shape{};
  TokenMap<const bfloat16> x{};
  const float* kernel = nullptr;  ///< (kernels, side, side)
  const float* bias = nullptr;    ///< (kernels), or null
  bool flipped = false;
  TokenMap<const bfloat16> base{};  ///< null data: 0; may be y
  TokenMap<bfloat16> y{};
};
void depthwise(const Depthwise& arguments, Stream stream);

/// d_kernel, d_bias += their gradients, summed over images, places and the channels that share a
/// kernel, in an order that depends on the sizes and the number of multiprocessors alone.
struct DepthwiseKernelGradient {
  DepthwiseShape shape{};
  TokenMap<const bfloat16> x{};
  TokenMap<const bfloat16> dy{};
  float* d_kernel = nullptr;  ///< (kernels, side, side)
  float* d_bias = nullptr;    ///< (kernels), or null
};
/// For the current device.
std::size_t depthwise_kernel_gradient_workspace_bytes(const DepthwiseShape& shape);
void depthwise_kernel_gradient(const DepthwiseKernelGradient& arguments, void* workspace,
                               Stream stream);

namespace reference {
void depthwise(const Depthwise& arguments);
void depthwise_kernel_gradient(const DepthwiseKernelGradient& arguments);
}  // namespace reference

}  // namespace ablate::kernels
