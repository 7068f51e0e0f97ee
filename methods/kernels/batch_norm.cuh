#pragma once

#include "methods/kernels/batch_norm.h"
#include "methods/kernels/column_reduction.cuh"

namespace ablate::kernels {

// Parts that the passes of batch normalisation share. A thread owns eight neighbouring channels of
// one group and walks over its rows; grid (tiles, slices, groups).

inline constexpr int kNormChannels = 8;

/// Tiles of one group: the groups together fill the device.
inline ColumnTiles batch_norm_tiles(const BatchNormShape& shape, int blocks_per_sm) {
  ColumnTiles tiles = column_tiles(shape.rows, shape.channels, kNormChannels, blocks_per_sm);
  tiles.slices = static_cast<int>(ceil_div<std::int64_t>(tiles.slices, shape.groups));
  return tiles;
}

inline dim3 batch_norm_grid(const ColumnTiles& tiles, const BatchNormShape& shape) {
  return {static_cast<unsigned>(tiles.tiles), static_cast<unsigned>(tiles.slices),
          static_cast<unsigned>(shape.groups)};
}

void check_batch_norm_shape(const BatchNormShape& shape);

using NormVector = Packed<kNormChannels, bfloat16>;
using NormValues = float[kNormChannels];

/// The numbers of a thread's channels from a (groups, channels) table.
__device__ __forceinline__ void load_table(const float* table, std::int64_t at, bool active,
                                           NormValues& values) {
  if (active) {
    load(table + at, values);
  } else {
#pragma unroll
    for (float& value : values) value = 0.0F;
  }
}

// The second stage of sums: a block of kTotalsThreads adds the slices of eight channels. There are
// few of them, so the time is that of a memory access or two: all sums at once, many slices apart.

inline constexpr int kTotalsThreads = 512;

/// totals[s] = sum over slices of partials[s][slice][first + threadIdx.x], in the first eight
/// threads. Called by all threads, again after the totals were read.
template <int kSums>
__device__ __forceinline__ void channel_totals(const float* partials, std::int64_t slices,
                                               std::int64_t width, std::int64_t first,
                                               float (&totals)[kSums]) {
  constexpr int kWarps = kTotalsThreads / 32;
  __shared__ float scratch[kWarps][kSums][kNormChannels];
  const int channel = static_cast<int>(threadIdx.x) % kNormChannels;
  const float* from = partials + first + channel;
  float sums[kSums] = {};
#pragma unroll 4
  for (std::int64_t slice = threadIdx.x / kNormChannels; slice < slices;
       slice += kTotalsThreads / kNormChannels) {
#pragma unroll
    for (int s = 0; s < kSums; ++s) sums[s] += from[(s * slices + slice) * width];
  }
  __syncthreads();  // readers of an earlier call are done
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    sums[s] += __shfl_xor_sync(0xffffffffU, sums[s], 8);
    sums[s] += __shfl_xor_sync(0xffffffffU, sums[s], 16);
    if (threadIdx.x % 32 < kNormChannels) scratch[threadIdx.x / 32][s][channel] = sums[s];
  }
  __syncthreads();
  if (threadIdx.x >= kNormChannels) return;
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    totals[s] = 0.0F;
    for (int warp = 0; warp < kWarps; ++warp) totals[s] += scratch[warp][s][channel];
  }
}

__device__ __forceinline__ float relu(float value) { return value < 0.0F ? 0.0F : value; }

}  // namespace ablate::kernels
