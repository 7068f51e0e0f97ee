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

__device__ __forceinline__ float relu(float value) { return value < 0.0F ? 0.0F : value; }

}  // namespace ablate::kernels
