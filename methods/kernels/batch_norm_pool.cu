#include <utility>

#include "methods/kernels/batch_norm.cuh"
#include "methods/kernels/batch_norm_pool.h"

namespace ablate::kernels {
namespace {

constexpr int kPoolBlocksPerSm = 3;
constexpr int kPoolGradientBlocksPerSm = 2;

__device__ __forceinline__ int pooled_side(int side) { return (side - 1) / 2 + 1; }

/// Place of a row in a group's map.
struct MapPlace {
  int image, y, x;

  __device__ __forceinline__ static MapPlace of(std::int64_t row, int height, int width) {
    const int pixel = static_cast<int>(row);
    const int line = pixel / width;
    return {line / height, line % height, pixel % width};
  }
};

/// The best element of a window so far, in each of a thread's channels.
struct Best {
  NormValues value, input;
  int tap[kNormChannels];

  __device__ __forceinline__ Best() {
#pragma unroll
    for (int j = 0; j < kNormChannels; ++j) {
      value[j] = -INFINITY;
      input[j] = 0.0F;
      tap[j] = 0;
    }
  }
  __device__ __forceinline__ void meet(const NormValues& inputs, const NormValues& scale,
                                       const NormValues& shift, int number) {
#pragma unroll
    for (int j = 0; j < kNormChannels; ++j) {
      const float found = fmaf(inputs[j], scale[j], shift[j]);
      if (!(found > value[j]) && !isnan(found)) continue;
      value[j] = found;
      input[j] = inputs[j];
      tap[j] = number;
    }
  }
};

__device__ __forceinline__ uint2 pack_taps(const int (&taps)[kNormChannels]) {
  const auto word = [&](int first) {
    return static_cast<unsigned>(taps[first]) | static_cast<unsigned>(taps[first + 1]) << 8 |
           static_cast<unsigned>(taps[first + 2]) << 16 |
           static_cast<unsigned>(taps[first + 3]) << 24;
  };
  return make_uint2(word(0), word(4));
}

__global__ void __launch_bounds__(kColumnThreads, kPoolBlocksPerSm)
    pool_kernel(BatchNormPool a, BatchNormShape pooled, ColumnTiles tiles) {
  const std::int64_t channels = a.shape.channels;
  const ColumnPlace place = column_place<kNormChannels>(tiles, channels);
  const int height = static_cast<int>(a.shape.height);
  const int width = static_cast<int>(a.shape.width);
  const int pooled_height = pooled_side(height);
  const int pooled_width = pooled_side(width);
  const std::int64_t group = blockIdx.z;
  NormValues scale;
  NormValues shift;
  load_table(a.tables.scale, group * channels + place.column, place.active, scale);
  load_table(a.tables.shift, group * channels + place.column, place.active, shift);
  const std::int64_t images = a.shape.batch / a.shape.groups;
  const bfloat16* map = a.x + group * images * height * width * channels + place.column;
  const std::int64_t base = group * pooled.rows * channels;
  const auto take_maximum = [&](BatchOf<1>, std::int64_t row, std::int64_t at, std::int64_t) {
    const MapPlace out = MapPlace::of(row, pooled_height, pooled_width);
    Best best;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      const int y = 2 * out.y - 1 + i;
      if (y < 0 || y >= height) continue;
      const std::int64_t line = (static_cast<std::int64_t>(out.image) * height + y) * width;
      NormVector inputs[3];
#pragma unroll
      for (int j = 0; j < 3; ++j) {
        const int x = 2 * out.x - 1 + j;
        if (x >= 0 && x < width) inputs[j].load(map + (line + x) * channels);
      }
#pragma unroll
      for (int j = 0; j < 3; ++j) {
        const int x = 2 * out.x - 1 + j;
        if (x < 0 || x >= width) continue;
        NormValues values;
        inputs[j].unpack(values);
        best.meet(values, scale, shift, 3 * i + j);
      }
    }
#pragma unroll
    for (float& value : best.value) value = relu(value);
    store(a.y + base + at, best.value);
    if (a.selected == nullptr) return;
    store(a.selected + base + at, best.input);
    *reinterpret_cast<uint2*>(a.taps + base + at) = pack_taps(best.tap);
  };
  for_each_row<1>(place, pooled.rows, channels, take_maximum);
}

/// A thread's channels of one window: its gradient and what it chose.
struct Window {
  NormVector g;
  uint2 taps;

  __device__ __forceinline__ void load(const BatchNormPoolInputGradient& a, std::int64_t from,
                                       bool exists) {
    g.clear();
    taps = make_uint2(0xffffffffU, 0xffffffffU);
    if (!exists) return;
    g.load(a.g + from);
    taps = *reinterpret_cast<const uint2*>(a.taps + from);
  }
  /// Adds the gradient of the channels that chose the tap.
  __device__ __forceinline__ void add(unsigned tap, NormValues& sums) const {
    NormValues values;
    g.unpack(values);
#pragma unroll
    for (int j = 0; j < kNormChannels; ++j) {
      const unsigned word = j < 4 ? taps.x : taps.y;
      if (((word >> (8 * (j % 4))) & 0xffU) == tap) sums[j] += values[j];
    }
  }
};

/// The windows that contain the element (i, j) of a square of 2 x 2 whose first element is the
/// centre of the first window, in order: window (p, q) is p rows and q columns further.
template <int kI, int kJ>
__device__ __forceinline__ void add_windows(const Window (&windows)[2][2], NormValues& sums) {
#pragma unroll
  for (int p = 0; p <= kI; ++p) {
#pragma unroll
    for (int q = 0; q <= kJ; ++q) {
      const int tap = 3 * (kI - 2 * p + 1) + kJ - 2 * q + 1;
      windows[p][q].add(static_cast<unsigned>(tap), sums);
    }
  }
}

/// A thread does a square of 2 x 2 elements at a time; rows are those of the pooled map, which has
/// as many.
__global__ void __launch_bounds__(kColumnThreads, kPoolGradientBlocksPerSm)
    pool_input_gradient_kernel(BatchNormPoolInputGradient a, BatchNormShape pooled,
                               ColumnTiles tiles) {
  const std::int64_t channels = a.shape.channels;
  const ColumnPlace place = column_place<kNormChannels>(tiles, channels);
  const int height = static_cast<int>(a.shape.height);
  const int width = static_cast<int>(a.shape.width);
  const int pooled_height = pooled_side(height);
  const int pooled_width = pooled_side(width);
  const std::int64_t group = blockIdx.z;
  const std::int64_t table = group * channels + place.column;
  NormValues scale;
  NormValues slope;
  NormValues offset;
  load_table(a.branch.tables.scale, table, place.active, scale);
  load_table(a.branch.slope, table, place.active, slope);
  load_table(a.branch.offset, table, place.active, offset);
  const std::int64_t images = a.shape.batch / a.shape.groups;
  const auto differentiate = [&](BatchOf<1>, std::int64_t row, std::int64_t at, std::int64_t) {
    const MapPlace first = MapPlace::of(row, pooled_height, pooled_width);
    Window windows[2][2];
    NormVector inputs[2][2];
    const std::int64_t from = group * pooled.rows * channels + at;
    const std::int64_t to =
        (((group * images + first.image) * height + 2 * first.y) * width + 2 * first.x) * channels +
        place.column;
    const auto exists = [&](int i, int j) {
      return 2 * first.y + i < height && 2 * first.x + j < width;
    };
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        windows[i][j].load(a, from + (i * pooled_width + j) * channels,
                           first.y + i < pooled_height && first.x + j < pooled_width);
        if (exists(i, j)) inputs[i][j].load(a.branch.x + to + (i * width + j) * channels);
      }
    }
    const auto finish = [&]<int kI, int kJ>(std::integer_sequence<int, kI, kJ>) {
      if (!exists(kI, kJ)) return;
      NormValues g = {};
      add_windows<kI, kJ>(windows, g);
      NormValues values;
      inputs[kI][kJ].unpack(values);
#pragma unroll
      for (int j = 0; j < kNormChannels; ++j) {
        values[j] = fmaf(scale[j], g[j], fmaf(slope[j], values[j], offset[j]));
      }
      store(a.dx + to + (kI * width + kJ) * channels, values);
    };
    finish(std::integer_sequence<int, 0, 0>{});
    finish(std::integer_sequence<int, 0, 1>{});
    finish(std::integer_sequence<int, 1, 0>{});
    finish(std::integer_sequence<int, 1, 1>{});
  };
  for_each_row<1>(place, pooled.rows, channels, differentiate);
}

void check_pool_shape(const PoolShape& shape) {
  check_batch_norm_shape(shape.rows());
  ABLATE_CHECK(shape.batch % shape.groups == 0, "batch_norm_pool: ", shape.batch, " images in ",
               shape.groups, " groups");
  ABLATE_CHECK(shape.rows().rows < (std::int64_t{1} << 31),
               "batch_norm_pool: up to 2^31 - 1 rows a group are supported");
}

}  // namespace

void batch_norm_pool(const BatchNormPool& a, Stream stream) {
  check_pool_shape(a.shape);
  ABLATE_CHECK((a.selected == nullptr) == (a.taps == nullptr),
               "batch_norm_pool: selected and taps come together");
  ABLATE_CHECK(all_aligned(16, a.x, a.y, a.selected, a.tables.scale, a.tables.shift) &&
                   all_aligned(8, a.taps),
               "batch_norm_pool: tensors must be aligned to 16 bytes, taps to 8");
  const BatchNormShape pooled = a.shape.pooled_rows();
  const ColumnTiles tiles = batch_norm_tiles(pooled, kPoolBlocksPerSm);
  pool_kernel<<<batch_norm_grid(tiles, pooled), kColumnThreads, 0, stream>>>(a, pooled, tiles);
  check_launch();
}

void batch_norm_pool_input_gradient(const BatchNormPoolInputGradient& a, Stream stream) {
  check_pool_shape(a.shape);
  ABLATE_CHECK(all_aligned(16, a.g, a.branch.x, a.dx, a.branch.tables.scale, a.branch.slope,
                           a.branch.offset) &&
                   all_aligned(8, a.taps),
               "batch_norm_pool: tensors must be aligned to 16 bytes, taps to 8");
  const BatchNormShape pooled = a.shape.pooled_rows();
  const ColumnTiles tiles = batch_norm_tiles(pooled, kPoolGradientBlocksPerSm);
  pool_input_gradient_kernel<<<batch_norm_grid(tiles, pooled), kColumnThreads, 0, stream>>>(
      a, pooled, tiles);
  check_launch();
}

}  // namespace ablate::kernels
