#include "methods/kernels/join.h"

namespace ablate::kernels::reference {
namespace {

double skip_of(const SkipGain& skip) {
  return static_cast<double>(skip.value) * (skip.factor == nullptr ? 1.0 : *skip.factor);
}

double branch_scale_of(const float* scale, std::int64_t sample) {
  return scale == nullptr ? 1.0 : scale[sample];
}

}  // namespace

template <typename R>
void join_forward(const JoinForward<R>& arguments) {
  const double skip = skip_of(arguments.skip);
  const std::int64_t per_sample = arguments.tokens * arguments.width;
  for (std::int64_t i = 0; i < arguments.batch * per_sample; ++i) {
    double value = skip * to_float(arguments.base[i]);
    if (arguments.branch != nullptr) {
      value += branch_scale_of(arguments.scale, i / per_sample) * to_float(arguments.branch[i]);
    }
    arguments.x[i] = from_float<R>(static_cast<float>(value));
  }
}

template <typename R>
void join_backward(const JoinBackward<R>& arguments) {
  const double skip = skip_of(arguments.skip);
  const std::int64_t rows = arguments.batch * arguments.tokens;
  for (std::int64_t column = 0; column < arguments.width; ++column) {
    double sum = 0.0;
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t i = row * arguments.width + column;
      const double gradient = to_float(arguments.dx[i]);
      const double d_branch = branch_scale_of(arguments.scale, row / arguments.tokens) * gradient;
      if (arguments.d_base != nullptr) {
        arguments.d_base[i] = from_float<R>(static_cast<float>(skip * gradient));
      }
      if (arguments.d_branch != nullptr) {
        arguments.d_branch[i] = from_float<bfloat16>(static_cast<float>(d_branch));
      }
      sum += d_branch;
    }
    if (arguments.d_bias != nullptr) {
      arguments.d_bias[column] = static_cast<float>(arguments.d_bias[column] + sum);
    }
  }
}

template void join_forward(const JoinForward<float>&);
template void join_forward(const JoinForward<bfloat16>&);
template void join_backward(const JoinBackward<float>&);
template void join_backward(const JoinBackward<bfloat16>&);

}  // namespace ablate::kernels::reference
