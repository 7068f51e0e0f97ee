#include "methods/kernels/batch_norm.cuh"

namespace ablate::kernels {
namespace {

constexpr int kReduceBlocksPerSm = 3;  // up to 80 registers a thread
/// With a mask and one normalisation, else 2: up to 128 registers.
constexpr int join_blocks_per_sm(bool mask, bool shortcut) { return mask && !shortcut ? 3 : 2; }

/// What a thread adds up over its rows.
struct GradientSums {
  NormValues g = {};
  NormValues g_distance = {};           ///< g (x - mean)
  NormValues g_shortcut_distance = {};  ///< the same of the shortcut
};

__device__ __forceinline__ void write_sums(const NormValues& sums, const ColumnTiles& tiles,
                                           const ColumnPlace& place, std::int64_t width,
                                           float* partials) {
  __syncthreads();  // readers of an earlier call are done
  write_partial_sums<kNormChannels>(sums, tiles, place, width, partials);
}

/// The gate recomputed from x; nothing is written.
__global__ void __launch_bounds__(kColumnThreads, kReduceBlocksPerSm)
    reduce_kernel(BatchNormReduce a, ColumnTiles tiles, float* partials) {
  const std::int64_t width = a.shape.channels;
  const ColumnPlace place = column_place<kNormChannels>(tiles, width);
  const std::int64_t group = gridDim.z - 1 - blockIdx.z;
  const std::int64_t table = group * width + place.column;
  [[maybe_unused]] NormValues scale;
  [[maybe_unused]] NormValues shift;
  NormValues mean;
  load_table(a.branch.tables.scale, table, place.active, scale);
  load_table(a.branch.tables.shift, table, place.active, shift);
  load_table(a.branch.tables.mean, table, place.active, mean);
  const std::int64_t end = ((group + 1) * a.shape.rows - 1) * width + 2 * place.column;
  GradientSums sums;
  const auto add_rows = [&]<int kBatch>(BatchOf<kBatch>, std::int64_t, std::int64_t at,
                                        std::int64_t step) {
    NormVector x[kBatch];
    NormVector dy[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      x[i].load(a.branch.x + end - at - i * step);
      dy[i].load(a.dy + end - at - i * step);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      NormValues values;
      NormValues gradients;
      x[i].unpack(values);
      dy[i].unpack(gradients);
#pragma unroll
      for (int j = 0; j < kNormChannels; ++j) {
        const float g = fmaf(values[j], scale[j], shift[j]) > 0.0F ? gradients[j] : 0.0F;
        sums.g[j] += g;
        sums.g_distance[j] = fmaf(g, values[j] - mean[j], sums.g_distance[j]);
      }
    }
  };
  for_each_row<3>(place, a.shape.rows, width, add_rows);
  float* mine = partials + group * 2 * tiles.slices * width;
  write_sums(sums.g, tiles, place, width, mine);
  write_sums(sums.g_distance, tiles, place, width, mine + tiles.slices * width);
}

/// Writes g; the gate is the mask, or recomputed from x where there is none.
template <bool kMask, bool kShortcut>
__global__ void __launch_bounds__(kColumnThreads, join_blocks_per_sm(kMask, kShortcut))
    join_reduce_kernel(BatchNormReduce a, ColumnTiles tiles, float* partials) {
  constexpr int kSums = kShortcut ? 3 : 2;
  const std::int64_t width = a.shape.channels;
  const ColumnPlace place = column_place<kNormChannels>(tiles, width);
  const std::int64_t group = gridDim.z - 1 - blockIdx.z;
  const std::int64_t table = group * width + place.column;
  [[maybe_unused]] NormValues scale;
  [[maybe_unused]] NormValues shift;
  NormValues mean;
  [[maybe_unused]] NormValues shortcut_mean;
  load_table(a.branch.tables.mean, table, place.active, mean);
  if constexpr (kShortcut) {
    load_table(a.shortcut.tables.mean, table, place.active, shortcut_mean);
  }
  if constexpr (!kMask) {
    load_table(a.branch.tables.scale, table, place.active, scale);
    load_table(a.branch.tables.shift, table, place.active, shift);
  }
  const std::int64_t end = ((group + 1) * a.shape.rows - 1) * width + 2 * place.column;
  GradientSums sums;
  const auto add_rows = [&]<int kBatch>(BatchOf<kBatch>, std::int64_t, std::int64_t at,
                                        std::int64_t step) {
    NormVector x[kBatch];
    NormVector dy[kBatch];
    NormVector more[kBatch];
    [[maybe_unused]] NormVector shortcut[kBatch];
    [[maybe_unused]] unsigned bits[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const std::int64_t from = end - at - i * step;
      x[i].load(a.branch.x + from);
      dy[i].load(a.dy + from);
      more[i].clear();
      if (a.dy_more != nullptr) more[i].load(a.dy_more + from);
      if constexpr (kShortcut) shortcut[i].load(a.shortcut.x + from);
      if constexpr (kMask) bits[i] = a.mask[from / kNormChannels];
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      NormValues values;
      NormValues gradients;
      NormValues added;
      x[i].unpack(values);
      dy[i].unpack(gradients);
      more[i].unpack(added);
      [[maybe_unused]] NormValues shortcut_values;
      if constexpr (kShortcut) shortcut[i].unpack(shortcut_values);
#pragma unroll
      for (int j = 0; j < kNormChannels; ++j) {
        bool open;
        if constexpr (kMask) {
          open = ((bits[i] >> j) & 1U) != 0;
        } else {
          open = fmaf(values[j], scale[j], shift[j]) > 0.0F;
        }
        const float g = open ? rounded_to<bfloat16>(gradients[j] + added[j]) : 0.0F;
        gradients[j] = g;
        sums.g[j] += g;
        sums.g_distance[j] = fmaf(g, values[j] - mean[j], sums.g_distance[j]);
        if constexpr (kShortcut) {
          sums.g_shortcut_distance[j] =
              fmaf(g, shortcut_values[j] - shortcut_mean[j], sums.g_shortcut_distance[j]);
        }
      }
      store(a.g + end - at - i * step, gradients);
    }
  };
  for_each_row<2>(place, a.shape.rows, width, add_rows);
  const std::int64_t part = tiles.slices * width;
  float* mine = partials + group * kSums * part;
  write_sums(sums.g, tiles, place, width, mine);
  write_sums(sums.g_distance, tiles, place, width, mine + part);
  if constexpr (kShortcut) {
    write_sums(sums.g_shortcut_distance, tiles, place, width, mine + 2 * part);
  }
}

/// What one group adds to the gradients of gamma and beta.
struct AffineGradient {
  float gamma = 0.0F;
  float beta = 0.0F;
};

__device__ AffineGradient write_slope(const BatchNormBranch& branch, std::int64_t at, double count,
                                      double sum, double sum_distance) {
  const double rstd = branch.tables.rstd[at];
  const double scale = branch.tables.scale[at];
  const double sum_xhat = sum_distance * rstd;
  const double slope = -scale * rstd * sum_xhat / count;
  branch.slope[at] = static_cast<float>(slope);
  branch.offset[at] = static_cast<float>(-scale * sum / count -
                                         slope * static_cast<double>(branch.tables.mean[at]));
  return {static_cast<float>(sum_xhat), static_cast<float>(sum)};
}

/// Blocks of eight channels, all groups one after the other.
template <bool kShortcut>
__global__ void __launch_bounds__(kTotalsThreads)
    finish_reduce_kernel(BatchNormReduce a, std::int64_t slices, const float* partials) {
  constexpr int kSums = kShortcut ? 3 : 2;
  const std::int64_t width = a.shape.channels;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kNormChannels;
  const std::int64_t channel = first + threadIdx.x;
  const bool mine = threadIdx.x < kNormChannels;
  const auto count = static_cast<double>(a.count);
  AffineGradient total;
  [[maybe_unused]] AffineGradient shortcut_total;
  for (std::int64_t group = 0; group < a.shape.groups; ++group) {
    float totals[kSums];
    channel_totals<kSums>(partials + group * kSums * slices * width, slices, width, first, totals);
    if (!mine) continue;
    const std::int64_t at = group * width + channel;
    const AffineGradient own = write_slope(a.branch, at, count, totals[0], totals[1]);
    total.gamma += own.gamma;
    total.beta += own.beta;
    if constexpr (kShortcut) {
      const AffineGradient other = write_slope(a.shortcut, at, count, totals[0], totals[2]);
      shortcut_total.gamma += other.gamma;
      shortcut_total.beta += other.beta;
    }
  }
  if (!mine) return;
  a.branch.d_gamma[channel] += total.gamma;
  a.branch.d_beta[channel] += total.beta;
  if constexpr (kShortcut) {
    a.shortcut.d_gamma[channel] += shortcut_total.gamma;
    a.shortcut.d_beta[channel] += shortcut_total.beta;
  }
}

/// Returns the number of slices.
template <bool kMask, bool kShortcut>
std::int64_t launch_join_reduce(const BatchNormReduce& a, float* partials, Stream stream) {
  const ColumnTiles tiles = batch_norm_tiles(a.shape, join_blocks_per_sm(kMask, kShortcut));
  join_reduce_kernel<kMask, kShortcut>
      <<<batch_norm_grid(tiles, a.shape), kColumnThreads, 0, stream>>>(a, tiles, partials);
  return tiles.slices;
}

}  // namespace

void batch_norm_reduce(const BatchNormReduce& arguments, void* workspace, Stream stream) {
  BatchNormReduce a = arguments;
  check_batch_norm_shape(a.shape);
  if (a.count == 0) a.count = a.shape.rows;
  const bool joins = a.g != nullptr;
  ABLATE_CHECK(joins || (a.mask == nullptr && a.dy_more == nullptr),
               "batch_norm_reduce: a residual or a second reader needs g");
  ABLATE_CHECK(a.shortcut.x == nullptr || a.mask != nullptr,
               "batch_norm_reduce: a normalised shortcut needs the mask");
  ABLATE_CHECK(all_aligned(16, a.dy, a.dy_more, a.g, a.branch.x, a.branch.tables.scale,
                           a.shortcut.x, a.shortcut.tables.scale),
               "batch_norm_reduce: tensors must be aligned to 16 bytes");
  auto* partials = static_cast<float*>(workspace);
  std::int64_t slices = 0;
  if (!joins) {
    const ColumnTiles tiles = batch_norm_tiles(a.shape, kReduceBlocksPerSm);
    slices = tiles.slices;
    reduce_kernel<<<batch_norm_grid(tiles, a.shape), kColumnThreads, 0, stream>>>(a, tiles,
                                                                                  partials);
  } else if (a.mask == nullptr) {
    slices = launch_join_reduce<false, false>(a, partials, stream);
  } else if (a.shortcut.x == nullptr) {
    slices = launch_join_reduce<true, false>(a, partials, stream);
  } else {
    slices = launch_join_reduce<true, true>(a, partials, stream);
  }
  check_launch();
  const auto blocks = static_cast<unsigned>(a.shape.channels / kNormChannels);
  const auto finish =
      a.shortcut.x != nullptr ? finish_reduce_kernel<true> : finish_reduce_kernel<false>;
  finish<<<blocks, kTotalsThreads, 0, stream>>>(a, slices, partials);
  check_launch();
}

}  // namespace ablate::kernels
