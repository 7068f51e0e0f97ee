#include "methods/kernels/batch_norm.cuh"

namespace ablate::kernels {
namespace {

/// Up to 80 registers a thread, 128 with two branches.
constexpr int blocks_per_sm(bool shortcut) { return shortcut ? 2 : 3; }

/// A branch's numbers for a thread's channels.
struct BranchValues {
  NormValues scale;
  NormValues slope;
  NormValues offset;

  __device__ __forceinline__ void load(const BatchNormBranch& branch, std::int64_t at,
                                       bool active) {
    load_table(branch.tables.scale, at, active, scale);
    load_table(branch.slope, at, active, slope);
    load_table(branch.offset, at, active, offset);
  }
  __device__ __forceinline__ float gradient(int j, float g, float x) const {
    return fmaf(scale[j], g, fmaf(slope[j], x, offset[j]));
  }
};

/// kGate: `dy` has to pass the ReLU, whose gate x tells.
template <bool kGate, bool kShortcut>
__global__ void __launch_bounds__(kColumnThreads, blocks_per_sm(kShortcut))
    input_gradient_kernel(BatchNormInputGradient a, ColumnTiles tiles) {
  static_assert(!(kGate && kShortcut));
  const std::int64_t width = a.shape.channels;
  const ColumnPlace place = column_place<kNormChannels>(tiles, width);
  const std::int64_t table = blockIdx.z * width + place.column;
  const bfloat16* gradient = kGate ? a.dy : a.g;
  BranchValues branch;
  [[maybe_unused]] BranchValues shortcut_branch;
  [[maybe_unused]] NormValues shift;
  branch.load(a.branch, table, place.active);
  if constexpr (kShortcut) shortcut_branch.load(a.shortcut, table, place.active);
  if constexpr (kGate) load_table(a.branch.tables.shift, table, place.active, shift);
  const std::int64_t base = blockIdx.z * a.shape.rows * width;
  const auto differentiate = [&]<int kBatch>(BatchOf<kBatch>, std::int64_t, std::int64_t at,
                                             std::int64_t step) {
    NormVector x[kBatch];
    NormVector g[kBatch];
    [[maybe_unused]] NormVector shortcut[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const std::int64_t from = base + at + i * step;
      x[i].load(a.branch.x + from);
      g[i].load(gradient + from);
      if constexpr (kShortcut) shortcut[i].load(a.shortcut.x + from);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const std::int64_t to = base + at + i * step;
      NormValues values;
      NormValues gradients;
      x[i].unpack(values);
      g[i].unpack(gradients);
      if constexpr (kShortcut) {
        NormValues result;
        shortcut[i].unpack(result);
#pragma unroll
        for (int j = 0; j < kNormChannels; ++j) {
          result[j] = shortcut_branch.gradient(j, gradients[j], result[j]);
        }
        store(a.d_shortcut + to, result);
      }
#pragma unroll
      for (int j = 0; j < kNormChannels; ++j) {
        float value = gradients[j];
        if constexpr (kGate) {
          if (!(fmaf(values[j], branch.scale[j], shift[j]) > 0.0F)) value = 0.0F;
        }
        gradients[j] = branch.gradient(j, value, values[j]);
      }
      store(a.dx + to, gradients);
    }
  };
  for_each_row<2>(place, a.shape.rows, width, differentiate);
}

template <bool kGate, bool kShortcut>
void launch_input_gradient(const BatchNormInputGradient& a, Stream stream) {
  const ColumnTiles tiles = batch_norm_tiles(a.shape, blocks_per_sm(kShortcut));
  input_gradient_kernel<kGate, kShortcut>
      <<<batch_norm_grid(tiles, a.shape), kColumnThreads, 0, stream>>>(a, tiles);
}

}  // namespace

void batch_norm_input_gradient(const BatchNormInputGradient& a, Stream stream) {
  check_batch_norm_shape(a.shape);
  const bool gate = a.g == nullptr;
  ABLATE_CHECK(!gate || a.shortcut.x == nullptr,
               "batch_norm_input_gradient: a normalised shortcut needs g");
  ABLATE_CHECK(all_aligned(16, a.g, a.dy, a.branch.x, a.dx, a.branch.tables.scale, a.branch.slope,
                           a.branch.offset, a.shortcut.x, a.d_shortcut),
               "batch_norm_input_gradient: tensors must be aligned to 16 bytes");
  if (gate) {
    launch_input_gradient<true, false>(a, stream);
  } else if (a.shortcut.x == nullptr) {
    launch_input_gradient<false, false>(a, stream);
  } else {
    launch_input_gradient<false, true>(a, stream);
  }
  check_launch();
}

}  // namespace ablate::kernels
