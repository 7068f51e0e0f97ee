#pragma once

#include "methods/kernels/batch_norm.h"

namespace ablate::kernels {

// The stem of a residual network behind its convolution: batch norm, ReLU and a 3x3 maximum with
// stride 2 and one row of padding, without the normalised map in memory. Statistics and everything
// else as in batch_norm.h; the windows' taps are numbered row by row, 0 to 8.

struct PoolShape {
  std::int64_t batch = 0, height = 0, width = 0, channels = 0;
  std::int64_t groups = 1;  ///< of `batch` images, each with tables of its own

  static std::int64_t pooled(std::int64_t side) { return (side - 1) / 2 + 1; }
  /// The pooled map as batch_norm_reduce() takes it.
  BatchNormShape pooled_rows() const {
    return {groups, batch / groups * pooled(height) * pooled(width), channels};
  }
  /// The map behind the statistics.
  BatchNormShape rows() const { return {groups, batch / groups * height * width, channels}; }
};

/// y = max over each window of relu(scale x + shift), the first of equal ones. Reads 2 bytes an
/// input element, writes 2 a pooled one; 3 more for what backward needs. Backward is
/// batch_norm_reduce() over pooled rows with x = selected, g wanted and count = rows().rows, then
/// batch_norm_pool_input_gradient().
struct BatchNormPool {
  PoolShape shape{};
  const bfloat16* x = nullptr;
  BatchNormTables tables{};      ///< scale, shift
  bfloat16* y = nullptr;         ///< pooled
  bfloat16* selected = nullptr;  ///< x where the maximum is, pooled; null: not wanted
  std::uint8_t* taps = nullptr;  ///< which of the window, pooled; aligned to 8; with `selected`
};
void batch_norm_pool(const BatchNormPool& arguments, Stream stream);

/// dx = scale (sum of g over the windows that chose this element) + slope x + offset, added up in
/// the order of the windows. Moves 4 bytes an input element and 3 a pooled one.
struct BatchNormPoolInputGradient {
  PoolShape shape{};
  const bfloat16* g = nullptr;         ///< pooled
  const std::uint8_t* taps = nullptr;  ///< pooled
  BatchNormBranch branch{};            ///< x is the whole map here
  bfloat16* dx = nullptr;              ///< may be x
};
void batch_norm_pool_input_gradient(const BatchNormPoolInputGradient& arguments, Stream stream);

namespace reference {
void batch_norm_pool(const BatchNormPool& arguments);
void batch_norm_pool_input_gradient(const BatchNormPoolInputGradient& arguments);
}  // namespace reference

}  // namespace ablate::kernels
