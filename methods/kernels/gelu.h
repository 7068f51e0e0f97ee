#pragma once

#include <cstddef>
#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

/// y = x Phi(x), the exact GELU (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016) with
/// the error function of gelu_math.h. T is float or bfloat16; computed in float.
///
/// x and y aligned to 16 bytes; y may be x. Moves 2 * count * sizeof(T) bytes.
template <typename T>
void gelu_forward(const T* x, T* y, std::int64_t count, Stream stream);

/// dx = dy (Phi(x) + x phi(x)); bias_gradient[c] += sum over rows of dx[r][c] (before it is rounded
/// to T): the bias gradient of the Linear that made x.
///
/// Any width; multiples of 8 run at full speed and need pointers aligned to 16 bytes. dx may be dy
/// or x. Moves 3 * rows * width * sizeof(T) bytes. Sums as in ColumnSum: fixed order.
template <typename T>
struct GeluBackward {
  const T* x = nullptr;   ///< (rows, width), dense, as all here
  const T* dy = nullptr;  ///< (rows, width)
  T* dx = nullptr;        ///< (rows, width)
  std::int64_t rows = 0;
  std::int64_t width = 0;
  float* bias_gradient = nullptr;  ///< (width), added to; null: not wanted
};

/// For the current device; not needed without a bias gradient.
std::size_t gelu_backward_workspace_bytes(std::int64_t rows, std::int64_t width);
/// `workspace` is aligned to 16 bytes.
template <typename T>
void gelu_backward(const GeluBackward<T>& arguments, void* workspace, Stream stream);

namespace reference {
template <typename T>
void gelu_forward(const T* x, T* y, std::int64_t count);
template <typename T>
void gelu_backward(const GeluBackward<T>& arguments);
}  // namespace reference

}  // namespace ablate::kernels
