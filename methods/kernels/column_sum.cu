#include "methods/kernels/column_reduction.cuh"
#include "methods/kernels/column_sum.h"

namespace ablate::kernels {
namespace {

template <int V, typename T>
__global__ void __launch_bounds__(kColumnThreads, kColumnBlocksPerSm)
    column_sum_kernel(ColumnSum<T> arguments, ColumnTiles tiles, float* partials) {
  const ColumnPlace place = column_place<V>(tiles, arguments.width);
  float sums[V] = {};
  const auto add_rows = [&]<int kBatch>(BatchOf<kBatch>, std::int64_t, std::int64_t at,
                                        std::int64_t step) {
    Packed<V, T> batch[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) batch[i].load(arguments.values + at + i * step);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      float values[V];
      batch[i].unpack(values);
#pragma unroll
      for (int j = 0; j < V; ++j) sums[j] += values[j];
    }
  };
  for_each_row<8>(place, arguments.rows, arguments.width, add_rows);
  write_partial_sums<V>(sums, tiles, place, arguments.width, partials);
}

/// Blocks of (32, 32): 32 columns, 32 interleaved parts of the slices; grid (columns, outputs).
__global__ void finish_kernel(ColumnPartials arguments) {
  __shared__ float parts[32][33];
  float* output = arguments.outputs[0];
  if (blockIdx.y == 1) output = arguments.outputs[1];
  if (blockIdx.y == 2) output = arguments.outputs[2];
  if (output == nullptr) return;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * 32;
  const float* partials = arguments.partials + static_cast<std::int64_t>(blockIdx.y) *
                                                   arguments.slices * arguments.width;
  const float total = column_total(partials, arguments.slices, arguments.width, first, parts);
  const std::int64_t mine = first + threadIdx.y;
  if (threadIdx.x == 0 && mine < arguments.width) output[mine] += total;
}

}  // namespace

void finish_column_sums(const ColumnPartials& partials, Stream stream) {
  if (partials.width == 0) return;
  unsigned outputs = 0;
  for (unsigned i = 0; i < 3; ++i) {
    if (partials.outputs[i] != nullptr) outputs = i + 1;
  }
  if (outputs == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div<std::int64_t>(partials.width, 32)), outputs);
  finish_kernel<<<grid, dim3(32, 32), 0, stream>>>(partials);
  check_launch();
}

std::size_t column_sum_workspace_bytes(std::int64_t rows, std::int64_t width) {
  return partial_sums_bytes(rows, width, width);
}

template <typename T>
void column_sum(const ColumnSum<T>& arguments, void* workspace, Stream stream) {
  ABLATE_CHECK(arguments.rows >= 0 && arguments.width >= 0, "column_sum of ", arguments.rows, " x ",
               arguments.width);
  if (arguments.rows == 0 || arguments.width == 0) return;
  const int vector = column_vector<T>(arguments.width);
  const ColumnTiles tiles = column_tiles(arguments.rows, arguments.width, vector);
  auto* partials = static_cast<float*>(workspace);
  if (vector > 1) {
    ABLATE_CHECK(is_aligned(arguments.values, 16),
                 "column_sum: values must be aligned to 16 bytes");
    column_sum_kernel<kFullVector<T>>
        <<<tiles.grid(), kColumnThreads, 0, stream>>>(arguments, tiles, partials);
  } else {
    column_sum_kernel<1><<<tiles.grid(), kColumnThreads, 0, stream>>>(arguments, tiles, partials);
  }
  check_launch();
  finish_column_sums({.partials = partials,
                      .slices = tiles.slices,
                      .width = arguments.width,
                      .outputs = {arguments.sums, nullptr, nullptr}},
                     stream);
}

template void column_sum(const ColumnSum<float>&, void*, Stream);
template void column_sum(const ColumnSum<bfloat16>&, void*, Stream);

}  // namespace ablate::kernels
