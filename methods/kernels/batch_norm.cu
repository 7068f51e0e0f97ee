#include "methods/kernels/batch_norm.cuh"

namespace ablate::kernels {
namespace {

/// Sums of distances from the first row and of their squares, rows from the last to the first.
__global__ void __launch_bounds__(kColumnThreads, kColumnBlocksPerSm)
    statistics_kernel(BatchNormStatistics a, ColumnTiles tiles, float* partials) {
  const std::int64_t width = a.shape.channels;
  const ColumnPlace place = column_place<kNormChannels>(tiles, width);
  const std::int64_t group = gridDim.z - 1 - blockIdx.z;
  const bfloat16* x = a.x + group * a.shape.rows * width;
  NormValues pivot;
  NormValues sums = {};
  NormValues squares = {};
  if (place.active) load(x + place.column, pivot);
  const bfloat16* end = x + (a.shape.rows - 1) * width + 2 * place.column;
  const auto add_rows = [&]<int kBatch>(BatchOf<kBatch>, std::int64_t, std::int64_t at,
                                        std::int64_t step) {
    NormVector batch[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) batch[i].load(end - at - i * step);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      NormValues values;
      batch[i].unpack(values);
#pragma unroll
      for (int j = 0; j < kNormChannels; ++j) {
        const float distance = values[j] - pivot[j];
        sums[j] += distance;
        squares[j] = fmaf(distance, distance, squares[j]);
      }
    }
  };
  for_each_row<4>(place, a.shape.rows, width, add_rows);
  float* mine = partials + group * 2 * tiles.slices * width;
  write_partial_sums<kNormChannels>(sums, tiles, place, width, mine);
  __syncthreads();
  write_partial_sums<kNormChannels>(squares, tiles, place, width, mine + tiles.slices * width);
}

struct Moments {
  double mean, variance;
};

__device__ void write_tables(const BatchNormStatistics& a, std::int64_t channel, std::int64_t at,
                             const Moments& moments) {
  const double rstd = 1.0 / sqrt(moments.variance + static_cast<double>(a.eps));
  const double scale = static_cast<double>(a.gamma[channel]) * rstd;
  a.tables.scale[at] = static_cast<float>(scale);
  a.tables.shift[at] =
      static_cast<float>(static_cast<double>(a.beta[channel]) - moments.mean * scale);
  a.tables.mean[at] = static_cast<float>(moments.mean);
  a.tables.rstd[at] = static_cast<float>(rstd);
}

/// Blocks of eight channels, all groups one after the other.
__global__ void __launch_bounds__(kTotalsThreads)
    finish_statistics_kernel(BatchNormStatistics a, std::int64_t slices, const float* partials) {
  const std::int64_t width = a.shape.channels;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kNormChannels;
  const std::int64_t channel = first + threadIdx.x;
  const bool mine = threadIdx.x < kNormChannels;
  const auto count = static_cast<double>(a.shape.rows);
  const double unbiased = count / (count - 1.0);
  double mean_share = 0.0;
  double variance_share = 0.0;
  for (std::int64_t group = 0; group < a.shape.groups; ++group) {
    float totals[2];
    channel_totals<2>(partials + group * 2 * slices * width, slices, width, first, totals);
    if (!mine) continue;
    float pivot[1];
    load(a.x + group * a.shape.rows * width + channel, pivot);
    const double distance = totals[0] / count;
    const double variance = totals[1] / count - distance * distance;
    // Rounding may leave a little below zero; NaN stays.
    const Moments moments{pivot[0] + distance, variance < 0.0 ? 0.0 : variance};
    write_tables(a, channel, group * width + channel, moments);
    const double keep = 1.0 - a.running.momentum;
    mean_share = mean_share * keep + a.running.momentum * moments.mean;
    variance_share = variance_share * keep + a.running.momentum * moments.variance * unbiased;
  }
  if (!mine || a.running.share == nullptr) return;
  a.running.share[channel] += a.running.after * mean_share;
  a.running.share[width + channel] += a.running.after * variance_share;
}

__global__ void evaluation_kernel(BatchNormEvaluation a) {
  const std::int64_t channel = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (channel >= a.channels) return;
  const double scale = static_cast<double>(a.gamma[channel]) /
                       sqrt(static_cast<double>(a.running_var[channel]) + a.eps);
  a.tables.scale[channel] = static_cast<float>(scale);
  a.tables.shift[channel] = static_cast<float>(
      static_cast<double>(a.beta[channel]) - static_cast<double>(a.running_mean[channel]) * scale);
}

enum class Residual { None, Plain, Normed };

/// Up to 64 registers a thread, 80 with two normalisations.
constexpr int apply_blocks_per_sm(Residual residual) {
  return residual == Residual::Normed ? 3 : kColumnBlocksPerSm;
}

template <Residual kResidual>
__global__ void __launch_bounds__(kColumnThreads, apply_blocks_per_sm(kResidual))
    apply_kernel(BatchNormApply a, ColumnTiles tiles) {
  constexpr int kRows = kResidual == Residual::None ? 4 : 2;
  const std::int64_t width = a.shape.channels;
  const ColumnPlace place = column_place<kNormChannels>(tiles, width);
  const std::int64_t table = blockIdx.z * width + place.column;
  NormValues scale;
  NormValues shift;
  [[maybe_unused]] NormValues residual_scale;
  [[maybe_unused]] NormValues residual_shift;
  load_table(a.tables.scale, table, place.active, scale);
  load_table(a.tables.shift, table, place.active, shift);
  if constexpr (kResidual == Residual::Normed) {
    load_table(a.residual_tables.scale, table, place.active, residual_scale);
    load_table(a.residual_tables.shift, table, place.active, residual_shift);
  }
  const std::int64_t base = blockIdx.z * a.shape.rows * width;
  const auto apply = [&]<int kBatch>(BatchOf<kBatch>, std::int64_t, std::int64_t at,
                                     std::int64_t step) {
    NormVector x[kBatch];
    [[maybe_unused]] NormVector residual[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      x[i].load(a.x + base + at + i * step);
      if constexpr (kResidual != Residual::None) {
        residual[i].load(a.residual + base + at + i * step);
      }
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const std::int64_t to = base + at + i * step;
      NormValues values;
      [[maybe_unused]] NormValues added;
      x[i].unpack(values);
      if constexpr (kResidual != Residual::None) residual[i].unpack(added);
      unsigned bits = 0;
#pragma unroll
      for (int j = 0; j < kNormChannels; ++j) {
        float value = fmaf(values[j], scale[j], shift[j]);
        if constexpr (kResidual == Residual::Plain) value += added[j];
        if constexpr (kResidual == Residual::Normed) {
          value += fmaf(added[j], residual_scale[j], residual_shift[j]);
        }
        bits |= (value > 0.0F ? 1U : 0U) << j;
        values[j] = relu(value);
      }
      store(a.y + to, values);
      if (a.mask != nullptr) a.mask[to / kNormChannels] = static_cast<std::uint8_t>(bits);
    }
  };
  for_each_row<kRows>(place, a.shape.rows, width, apply);
}

template <Residual kResidual>
void launch_apply(const BatchNormApply& a, Stream stream) {
  const ColumnTiles tiles = batch_norm_tiles(a.shape, apply_blocks_per_sm(kResidual));
  apply_kernel<kResidual><<<batch_norm_grid(tiles, a.shape), kColumnThreads, 0, stream>>>(a, tiles);
}

}  // namespace

void check_batch_norm_shape(const BatchNormShape& shape) {
  ABLATE_CHECK(shape.channels > 0 && shape.channels % kNormChannels == 0, "batch normalisation of ",
               shape.channels, " channels: multiples of ", kNormChannels, " are supported");
  ABLATE_CHECK(shape.groups > 0 && shape.groups <= 65535 && shape.rows > 0,
               "batch normalisation of ", shape.groups, " groups of ", shape.rows, " rows");
}

std::size_t batch_norm_workspace_bytes(const BatchNormShape& shape) {
  constexpr std::int64_t kSums = 3;
  check_batch_norm_shape(shape);
  const ColumnTiles tiles = batch_norm_tiles(shape, kColumnBlocksPerSm);
  return static_cast<std::size_t>(kSums * tiles.slices * shape.values()) * sizeof(float);
}

void batch_norm_statistics(const BatchNormStatistics& a, void* workspace, Stream stream) {
  check_batch_norm_shape(a.shape);
  ABLATE_CHECK(a.shape.rows > 1, "one value a channel has no variance");
  ABLATE_CHECK(all_aligned(16, a.x, workspace),
               "batch_norm_statistics: x must be aligned to 16 bytes");
  const ColumnTiles tiles = batch_norm_tiles(a.shape, kColumnBlocksPerSm);
  auto* partials = static_cast<float*>(workspace);
  statistics_kernel<<<batch_norm_grid(tiles, a.shape), kColumnThreads, 0, stream>>>(a, tiles,
                                                                                    partials);
  check_launch();
  const auto blocks = static_cast<unsigned>(a.shape.channels / kNormChannels);
  finish_statistics_kernel<<<blocks, kTotalsThreads, 0, stream>>>(a, tiles.slices, partials);
  check_launch();
}

void batch_norm_evaluation(const BatchNormEvaluation& a, Stream stream) {
  constexpr unsigned kThreads = 128;
  if (a.channels == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(a.channels, kThreads));
  evaluation_kernel<<<blocks, kThreads, 0, stream>>>(a);
  check_launch();
}

void batch_norm_apply(const BatchNormApply& a, Stream stream) {
  check_batch_norm_shape(a.shape);
  ABLATE_CHECK(all_aligned(16, a.x, a.residual, a.y, a.tables.scale, a.tables.shift,
                           a.residual_tables.scale, a.residual_tables.shift),
               "batch_norm_apply: tensors must be aligned to 16 bytes");
  if (a.residual == nullptr) {
    launch_apply<Residual::None>(a, stream);
  } else if (a.residual_tables.scale == nullptr) {
    launch_apply<Residual::Plain>(a, stream);
  } else {
    launch_apply<Residual::Normed>(a, stream);
  }
  check_launch();
}

}  // namespace ablate::kernels
