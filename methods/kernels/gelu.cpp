#include "methods/kernels/gelu.h"

#include <cmath>
#include <numbers>

namespace ablate::kernels::reference {
namespace {

double cumulative_normal(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

double normal_density(double x) {
  return std::exp(-0.5 * x * x) * 0.5 * std::numbers::inv_sqrtpi * std::numbers::sqrt2;
}

}  // namespace

template <typename T>
void gelu_forward(const T* x, T* y, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = to_float(x[i]);
    y[i] = from_float<T>(static_cast<float>(value * cumulative_normal(value)));
  }
}

template <typename T>
void gelu_backward(const GeluBackward<T>& arguments) {
  for (std::int64_t column = 0; column < arguments.width; ++column) {
    double sum = 0.0;
    for (std::int64_t row = 0; row < arguments.rows; ++row) {
      const std::int64_t i = row * arguments.width + column;
      const double x = to_float(arguments.x[i]);
      const double dx = to_float(arguments.dy[i]) * (cumulative_normal(x) + x * normal_density(x));
      arguments.dx[i] = from_float<T>(static_cast<float>(dx));
      sum += dx;
    }
    if (arguments.bias_gradient != nullptr) {
      arguments.bias_gradient[column] = static_cast<float>(arguments.bias_gradient[column] + sum);
    }
  }
}

template void gelu_forward(const float*, float*, std::int64_t);
template void gelu_forward(const bfloat16*, bfloat16*, std::int64_t);
template void gelu_backward(const GeluBackward<float>&);
template void gelu_backward(const GeluBackward<bfloat16>&);

}  // namespace ablate::kernels::reference
