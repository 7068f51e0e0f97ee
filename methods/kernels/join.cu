#include "methods/kernels/column_reduction.cuh"
#include "methods/kernels/join.h"

namespace ablate::kernels {
namespace {

constexpr int kJoinThreads = 256;
constexpr int kJoinVectors = 2;  // of one thread

__device__ __forceinline__ float join_gain(const SkipGain& skip) {
  return skip.value * (skip.factor == nullptr ? 1.0F : *skip.factor);
}

/// Grid (pieces of a sample, samples): the scale is one for the block.
template <int V, typename R>
__global__ void __launch_bounds__(kJoinThreads) join_forward_kernel(JoinForward<R> arguments) {
  const std::int64_t per_sample = arguments.tokens * arguments.width;
  const std::int64_t first =
      (static_cast<std::int64_t>(blockIdx.x) * kJoinVectors * kJoinThreads + threadIdx.x) * V;
  const float skip = join_gain(arguments.skip);
  for (std::int64_t sample = blockIdx.y; sample < arguments.batch; sample += gridDim.y) {
    const float scale = arguments.scale == nullptr ? 1.0F : arguments.scale[sample];
    Packed<V, R> base[kJoinVectors];
    Packed<V, bfloat16> branch[kJoinVectors];
#pragma unroll
    for (int i = 0; i < kJoinVectors; ++i) {
      const std::int64_t at = first + i * kJoinThreads * V;
      branch[i].clear();
      if (at >= per_sample) continue;
      base[i].load(arguments.base + sample * per_sample + at);
      if (arguments.branch != nullptr) branch[i].load(arguments.branch + sample * per_sample + at);
    }
#pragma unroll
    for (int i = 0; i < kJoinVectors; ++i) {
      const std::int64_t at = first + i * kJoinThreads * V;
      if (at >= per_sample) continue;
      float x[V];
      float added[V];
      base[i].unpack(x);
      branch[i].unpack(added);
#pragma unroll
      for (int j = 0; j < V; ++j) x[j] = fmaf(scale, added[j], skip * x[j]);
      store(arguments.x + sample * per_sample + at, x);
    }
  }
}

template <int V, typename R>
__global__ void __launch_bounds__(kColumnThreads, kColumnBlocksPerSm)
    join_backward_kernel(JoinBackward<R> arguments, ColumnTiles tiles, float* partials) {
  const ColumnPlace place = column_place<V>(tiles, arguments.width);
  const float skip = join_gain(arguments.skip);
  float sums[V] = {};
  const auto differentiate = [&]<int kBatch>(BatchOf<kBatch>, std::int64_t row, std::int64_t at,
                                             std::int64_t step) {
    Packed<V, R> dx[kBatch];
    float scale[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      dx[i].load(arguments.dx + at + i * step);
      const auto sample =
          static_cast<unsigned>(row + i * place.stride) / static_cast<unsigned>(arguments.tokens);
      scale[i] = arguments.scale == nullptr ? 1.0F : arguments.scale[sample];
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      float gradient[V];
      float branch[V];
      dx[i].unpack(gradient);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        branch[j] = scale[i] * gradient[j];
        sums[j] += branch[j];
        gradient[j] *= skip;
      }
      if (arguments.d_base != nullptr) store(arguments.d_base + at + i * step, gradient);
      if (arguments.d_branch != nullptr) store(arguments.d_branch + at + i * step, branch);
    }
  };
  for_each_row<2>(place, arguments.batch * arguments.tokens, arguments.width, differentiate);
  if (partials != nullptr) write_partial_sums<V>(sums, tiles, place, arguments.width, partials);
}

template <int V, typename R>
void launch_join_forward(const JoinForward<R>& arguments, Stream stream) {
  constexpr std::int64_t kMaxSamples = 65535;  // of a grid
  constexpr std::int64_t kElements = std::int64_t{kJoinThreads} * kJoinVectors * V;
  const dim3 grid(static_cast<unsigned>(ceil_div(arguments.tokens * arguments.width, kElements)),
                  static_cast<unsigned>(std::min(arguments.batch, kMaxSamples)));
  join_forward_kernel<V><<<grid, kJoinThreads, 0, stream>>>(arguments);
  check_launch();
}

}  // namespace

template <typename R>
void join_forward(const JoinForward<R>& arguments, Stream stream) {
  if (arguments.batch * arguments.tokens * arguments.width == 0) return;
  if (arguments.width % 8 != 0) {
    launch_join_forward<1>(arguments, stream);
    return;
  }
  ABLATE_CHECK(all_aligned(16, arguments.base, arguments.branch, arguments.x),
               "join: tensors must be aligned to 16 bytes");
  launch_join_forward<kFullVector<R>>(arguments, stream);
}

std::size_t join_backward_workspace_bytes(std::int64_t batch, std::int64_t tokens,
                                          std::int64_t width) {
  return partial_sums_bytes(batch * tokens, width, width);
}

template <typename R>
void join_backward(const JoinBackward<R>& arguments, void* workspace, Stream stream) {
  const std::int64_t rows = arguments.batch * arguments.tokens;
  if (rows * arguments.width == 0) return;
  ABLATE_CHECK(rows < (std::int64_t{1} << 31), "join: up to 2^31 - 1 rows are supported");
  const int vector = column_vector<R>(arguments.width);
  const ColumnTiles tiles = column_tiles(rows, arguments.width, vector);
  float* partials = arguments.d_bias == nullptr ? nullptr : static_cast<float*>(workspace);
  if (vector > 1) {
    ABLATE_CHECK(all_aligned(16, arguments.dx, arguments.d_base, arguments.d_branch),
                 "join: tensors must be aligned to 16 bytes");
    join_backward_kernel<kFullVector<R>>
        <<<tiles.grid(), kColumnThreads, 0, stream>>>(arguments, tiles, partials);
  } else {
    join_backward_kernel<1>
        <<<tiles.grid(), kColumnThreads, 0, stream>>>(arguments, tiles, partials);
  }
  check_launch();
  if (partials == nullptr) return;
  finish_column_sums({.partials = partials,
                      .slices = tiles.slices,
                      .width = arguments.width,
                      .outputs = {arguments.d_bias, nullptr, nullptr}},
                     stream);
}

template void join_forward(const JoinForward<float>&, Stream);
template void join_forward(const JoinForward<bfloat16>&, Stream);
template void join_backward(const JoinBackward<float>&, void*, Stream);
template void join_backward(const JoinBackward<bfloat16>&, void*, Stream);

}  // namespace ablate::kernels
