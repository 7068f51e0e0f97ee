#pragma once

#include <cstddef>
#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

/// sums[c] += sum over r of values[r][c], in float: the bias gradient of a Linear from the gradient
/// of its output. T is float or bfloat16.
///
/// Any width; multiples of 8 run at full speed and need `values` aligned to 16 bytes. Reads
/// rows * width * sizeof(T) bytes. Two stages in an order that depends on the sizes and the number
/// of multiprocessors alone: bits repeat on equal devices.
template <typename T>
struct ColumnSum {
  const T* values = nullptr;  ///< (rows, width), dense
  std::int64_t rows = 0;
  std::int64_t width = 0;
  float* sums = nullptr;  ///< (width), added to
};

/// For the current device.
std::size_t column_sum_workspace_bytes(std::int64_t rows, std::int64_t width);
/// `workspace` is aligned to 16 bytes.
template <typename T>
void column_sum(const ColumnSum<T>& arguments, void* workspace, Stream stream);

namespace reference {
template <typename T>
void column_sum(const ColumnSum<T>& arguments);
}  // namespace reference

}  // namespace ablate::kernels
