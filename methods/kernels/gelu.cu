#include "methods/kernels/column_reduction.cuh"
#include "methods/kernels/gelu.h"
#include "methods/kernels/gelu_math.h"

namespace ablate::kernels {
namespace {

constexpr int kForwardThreads = 256;
constexpr int kForwardVectors = 2;  // of one thread
template <typename T>
constexpr int kForwardElements = kFullVector<T>* kForwardVectors* kForwardThreads;  // of a block

template <typename T>
__global__ void __launch_bounds__(kForwardThreads)
    gelu_forward_kernel(const T* x, T* y, std::int64_t count) {
  constexpr int V = kFullVector<T>;
  const std::int64_t first = static_cast<std::int64_t>(block_from_end()) * kForwardElements<T> +
                             V * static_cast<std::int64_t>(threadIdx.x);
  Packed<V, T> packed[kForwardVectors];
#pragma unroll
  for (int i = 0; i < kForwardVectors; ++i) {
    const std::int64_t at = first + i * V * kForwardThreads;
    if (at + V <= count) packed[i].load(x + at);
  }
#pragma unroll
  for (int i = 0; i < kForwardVectors; ++i) {
    const std::int64_t at = first + i * V * kForwardThreads;
    if (at + V <= count) {
      float values[V];
      packed[i].unpack(values);
#pragma unroll
      for (float& value : values) value = gelu_value(value);
      store(y + at, values);
    } else {
      for (std::int64_t j = at; j < count; ++j) {
        float value[1];
        load(x + j, value);
        value[0] = gelu_value(value[0]);
        store(y + j, value);
      }
    }
  }
}

template <int V, typename T>
__global__ void __launch_bounds__(kColumnThreads, kColumnBlocksPerSm)
    gelu_backward_kernel(GeluBackward<T> arguments, ColumnTiles tiles, float* partials) {
  const ColumnPlace place = column_place<V>(tiles, arguments.width);
  float sums[V] = {};
  const auto differentiate = [&]<int kBatch>(BatchOf<kBatch>, std::int64_t at, std::int64_t step) {
    Packed<V, T> x[kBatch];
    Packed<V, T> dy[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      x[i].load(arguments.x + at + i * step);
      dy[i].load(arguments.dy + at + i * step);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      float inputs[V];
      float gradients[V];
      x[i].unpack(inputs);
      dy[i].unpack(gradients);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        gradients[j] *= gelu_slope(inputs[j]);
        sums[j] += gradients[j];
      }
      store(arguments.dx + at + i * step, gradients);
    }
  };
  for_each_row_from_end<2>(place, arguments.rows, arguments.width, differentiate);
  if (partials != nullptr) {
    write_partial_sums<V>(sums, tiles, place, arguments.width, partials);
  }
}

}  // namespace

template <typename T>
void gelu_forward(const T* x, T* y, std::int64_t count, Stream stream) {
  ABLATE_CHECK(count >= 0, "gelu_forward of ", count, " elements");
  ABLATE_CHECK(is_aligned(x, 16) && is_aligned(y, 16),
               "gelu_forward: x and y must be aligned to 16 bytes");
  if (count == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(count, kForwardElements<T>));
  gelu_forward_kernel<<<blocks, kForwardThreads, 0, stream>>>(x, y, count);
  check_launch();
}

std::size_t gelu_backward_workspace_bytes(std::int64_t rows, std::int64_t width) {
  return partial_sums_bytes(rows, width, width);
}

template <typename T>
void gelu_backward(const GeluBackward<T>& arguments, void* workspace, Stream stream) {
  ABLATE_CHECK(arguments.rows >= 0 && arguments.width >= 0, "gelu_backward of ", arguments.rows,
               " x ", arguments.width);
  if (arguments.rows == 0 || arguments.width == 0) return;
  const int vector = column_vector<T>(arguments.width);
  const ColumnTiles tiles = column_tiles(arguments.rows, arguments.width, vector);
  float* partials = arguments.bias_gradient == nullptr ? nullptr : static_cast<float*>(workspace);
  if (vector > 1) {
    ABLATE_CHECK(
        is_aligned(arguments.x, 16) && is_aligned(arguments.dy, 16) && is_aligned(arguments.dx, 16),
        "gelu_backward: x, dy and dx must be aligned to 16 bytes");
    gelu_backward_kernel<kFullVector<T>>
        <<<tiles.grid(), kColumnThreads, 0, stream>>>(arguments, tiles, partials);
  } else {
    gelu_backward_kernel<1>
        <<<tiles.grid(), kColumnThreads, 0, stream>>>(arguments, tiles, partials);
  }
  check_launch();
  if (partials == nullptr) return;
  finish_column_sums({.partials = partials,
                      .slices = tiles.slices,
                      .width = arguments.width,
                      .outputs = {arguments.bias_gradient, nullptr, nullptr}},
                     stream);
}

template void gelu_forward(const float*, float*, std::int64_t, Stream);
template void gelu_forward(const bfloat16*, bfloat16*, std::int64_t, Stream);
template void gelu_backward(const GeluBackward<float>&, void*, Stream);
template void gelu_backward(const GeluBackward<bfloat16>&, void*, Stream);

}  // namespace ablate::kernels
