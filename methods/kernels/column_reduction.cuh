#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "methods/kernels/bfloat16.h"
#include "methods/kernels/cuda_check.h"
#include "methods/kernels/device.cuh"
#include "runner/core/error.h"

namespace ablate::kernels {

// Sums over the rows of a (rows, width) matrix in two stages of fixed order. First, blocks of 256
// threads: a thread owns V neighbouring columns and walks down the rows of its slice; the block
// writes one row of partial sums. Second, finish_column_sums() adds the rows of partial sums.

inline constexpr int kColumnThreads = 256;
inline constexpr int kColumnBlocksPerSm = 4;  ///< resident: up to 64 registers a thread

/// Division of the first stage: grid (tiles, slices), in a block `lanes` threads across and `rows`
/// down (some threads may be idle).
struct ColumnTiles {
  int lanes = 1;
  int rows = 1;
  int tiles = 1;
  int slices = 1;  ///< rows of partial sums

  dim3 grid() const { return {static_cast<unsigned>(tiles), static_cast<unsigned>(slices), 1}; }
};

/// Elements of a thread where rows of `width` elements of T keep 16-byte alignment, else 1.
template <typename T>
int column_vector(std::int64_t width) {
  return width % 8 == 0 ? kFullVector<T> : 1;
}

/// `vector` divides width; so many blocks fit a multiprocessor.
inline ColumnTiles column_tiles(std::int64_t rows, std::int64_t width, int vector,
                                int blocks_per_sm = kColumnBlocksPerSm) {
  constexpr int kMaxLanes = 64;         // 1 KiB of a row
  constexpr std::int64_t kMinRows = 4;  // of one thread, or partial sums cost too much
  const std::int64_t vectors = width / vector;
  ColumnTiles best;
  double best_use = 0.0;
  const std::int64_t fewest = ceil_div<std::int64_t>(vectors, kMaxLanes);
  for (std::int64_t tiles = fewest; tiles <= 2 * fewest; ++tiles) {
    const std::int64_t lanes = ceil_div(vectors, tiles);
    const std::int64_t block_rows = kColumnThreads / lanes;
    const double use = static_cast<double>(vectors * block_rows) /
                       static_cast<double>(ceil_div(vectors, lanes) * kColumnThreads);
    if (use > best_use + 1e-3) {
      best_use = use;
      best.lanes = static_cast<int>(lanes);
      best.rows = static_cast<int>(block_rows);
      best.tiles = static_cast<int>(ceil_div(vectors, lanes));
    }
  }
  // One wave of resident blocks, or several when that leaves much of the device idle.
  const std::int64_t resident = std::int64_t{blocks_per_sm} * multiprocessor_count();
  const std::int64_t wanted = 4 * std::int64_t{best.tiles} <= resident
                                  ? resident / best.tiles
                                  : ceil_div<std::int64_t>(4 * resident, best.tiles);
  const std::int64_t most =
      ceil_div<std::int64_t>(std::max<std::int64_t>(rows, 1), best.rows * kMinRows);
  best.slices = static_cast<int>(std::clamp<std::int64_t>(wanted, 1, most));
  return best;
}

/// Enough for the partial sums of a matrix of any type; rows of `row_width` elements decide on
/// vectors (`width` is a multiple of it).
inline std::size_t partial_sums_bytes(std::int64_t rows, std::int64_t width,
                                      std::int64_t row_width) {
  if (width == 0) return 0;
  const int slices = std::max(column_tiles(rows, width, column_vector<float>(row_width)).slices,
                              column_tiles(rows, width, column_vector<bfloat16>(row_width)).slices);
  return static_cast<std::size_t>(slices) * static_cast<std::size_t>(width) * sizeof(float);
}

/// A thread's part of the first stage.
struct ColumnPlace {
  std::int64_t column;  ///< first of its V columns
  std::int64_t row;     ///< first row
  std::int64_t stride;  ///< rows to its next one
  bool active;
};

template <int V>
__device__ __forceinline__ ColumnPlace column_place(const ColumnTiles& tiles, std::int64_t width) {
  const int lane = static_cast<int>(threadIdx.x) % tiles.lanes;
  const int row = static_cast<int>(threadIdx.x) / tiles.lanes;
  const std::int64_t column =
      (static_cast<std::int64_t>(blockIdx.x) * tiles.lanes + lane) * std::int64_t{V};
  return {column, static_cast<std::int64_t>(blockIdx.y) * tiles.rows + row,
          static_cast<std::int64_t>(gridDim.y) * tiles.rows, row < tiles.rows && column < width};
}

template <int Rows>
using BatchOf = std::integral_constant<int, Rows>;

/// Calls visit(BatchOf<n>, row, at, step) for the thread's rows in order, n rows at a time: Batch
/// while there are so many, then single ones. The i-th of them is row + i * stride, its elements
/// begin at + i * step elements behind the first of the matrix. Loads of a batch are to be in
/// flight together.
template <int Batch, typename Visit>
__device__ __forceinline__ void for_each_row(const ColumnPlace& place, std::int64_t rows,
                                             std::int64_t width, const Visit& visit) {
  if (!place.active) return;
  const std::int64_t step = place.stride * width;
  std::int64_t row = place.row;
  std::int64_t at = row * width + place.column;
  for (; row + (Batch - 1) * place.stride < rows; row += Batch * place.stride, at += Batch * step) {
    visit(BatchOf<Batch>{}, row, at, step);
  }
  for (; row < rows; row += place.stride, at += step) visit(BatchOf<1>{}, row, at, step);
}

/// The same from the last row to the first (see block_from_end()), without the row's number:
/// visit(BatchOf<n>, at, step).
template <int Batch, typename Visit>
__device__ __forceinline__ void for_each_row_from_end(const ColumnPlace& place, std::int64_t rows,
                                                      std::int64_t width, const Visit& visit) {
  for_each_row<Batch>(
      place, rows, width,
      [&]<int kBatch>(BatchOf<kBatch> batch, std::int64_t, std::int64_t at, std::int64_t step) {
        const std::int64_t last = (rows - 1) * width + 2 * place.column;
        visit(batch, last - at, -step);
      });
}

/// Ends the first stage: the block's sums go to row blockIdx.y of `partials` (slices, width).
/// Called once by all threads, also inactive ones.
template <int V>
__device__ __forceinline__ void write_partial_sums(const float (&sums)[V], const ColumnTiles& tiles,
                                                   const ColumnPlace& place, std::int64_t width,
                                                   float* partials) {
  __shared__ float scratch[kColumnThreads * V];  // (tiles.rows, tiles.lanes * V)
  if (static_cast<int>(threadIdx.x) < tiles.lanes * tiles.rows) {
    store(scratch + threadIdx.x * V, sums);
  }
  __syncthreads();
  const int columns = tiles.lanes * V;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * columns;
  for (int c = static_cast<int>(threadIdx.x); c < columns; c += kColumnThreads) {
    if (first + c >= width) break;
    float sum = 0.0F;
    for (int row = 0; row < tiles.rows; ++row) sum += scratch[row * columns + c];
    partials[static_cast<std::int64_t>(blockIdx.y) * width + first + c] = sum;
  }
}

/// The second stage by blocks of (32, 32), for 32 columns from `first` on: the sum over all slices
/// of column first + threadIdx.y, in all lanes of that warp. Called by all threads; `parts` is
/// shared memory and can be used again by the next call.
__device__ __forceinline__ float column_total(const float* partials, std::int64_t slices,
                                              std::int64_t width, std::int64_t first,
                                              float (&parts)[32][33]) {
  const std::int64_t column = first + threadIdx.x;
  float sum = 0.0F;
  if (column < width) {
#pragma unroll 8
    for (std::int64_t slice = threadIdx.y; slice < slices; slice += 32) {
      sum += partials[slice * width + column];
    }
  }
  __syncthreads();  // readers of an earlier call are done
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  // Transposed: a warp adds the 32 parts of its column.
  return warp_sum(parts[threadIdx.x][threadIdx.y]);
}

/// Second stage, of up to three sums at once: outputs[a][c] += sum over s of partials[a][s][c].
/// Null outputs are left out.
struct ColumnPartials {
  const float* partials = nullptr;  ///< (3, slices, width)
  std::int64_t slices = 0;
  std::int64_t width = 0;
  float* outputs[3] = {};
};

void finish_column_sums(const ColumnPartials& partials, Stream stream);

}  // namespace ablate::kernels
