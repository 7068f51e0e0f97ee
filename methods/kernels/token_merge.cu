#include "methods/kernels/cuda_check.h"
#include "methods/kernels/device.cuh"
#include "methods/kernels/token_merge.h"
#include "runner/core/error.h"

namespace ablate::kernels {
namespace {

constexpr int kRowThreads = 256;  ///< a warp a row
constexpr int kBatch = 4;         ///< vectors of a lane on the way together

/// Vectors of 16 bytes of a row, or single elements.
template <typename T>
constexpr int kWide = 16 / static_cast<int>(sizeof(T));

struct Rows {
  std::int64_t count = 0;  ///< of the output
  std::int64_t width = 0;

  unsigned blocks() const {
    return static_cast<unsigned>(ceil_div<std::int64_t>(count, kRowThreads / 32));
  }
};

__device__ __forceinline__ std::int64_t row_of_warp() {
  return blockIdx.x * std::int64_t{kRowThreads / 32} + warp_index();
}

/// Adds weight * a row to the lane's vectors from `first` on.
template <int V, typename T>
__device__ __forceinline__ void add_row(float (&sums)[kBatch][V], const T* row, float weight,
                                        std::int64_t first, std::int64_t width) {
  Packed<V, T> batch[kBatch];
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    const std::int64_t column = first + i * 32 * V;
    batch[i].clear();
    if (column < width) batch[i].load(row + column);
  }
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    float values[V];
    batch[i].unpack(values);
#pragma unroll
    for (int j = 0; j < V; ++j) sums[i][j] = fmaf(weight, values[j], sums[i][j]);
  }
}

template <int V, typename T>
__device__ __forceinline__ void store_row(T* row, const float (&sums)[kBatch][V],
                                          std::int64_t first, std::int64_t width) {
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    const std::int64_t column = first + i * 32 * V;
    if (column < width) store(row + column, sums[i]);
  }
}

/// Calls body(first column of the lane) for each stretch of a row.
template <int V, typename Body>
__device__ __forceinline__ void for_each_stretch(std::int64_t width, const Body& body) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (std::int64_t first = lane * V; first < width; first += kBatch * 32 * V) body(first);
}

template <int V, typename T>
__global__ void __launch_bounds__(kRowThreads, 4) merge_kernel(TokenMerge<T> a) {
  const std::int64_t row = row_of_warp();
  if (row >= a.batch * a.new_tokens) return;
  const std::int64_t image = row / a.new_tokens;
  const std::int32_t* offsets = a.offsets + image + row;  // one more offset than groups
  const std::int32_t* members = a.members + image * a.tokens;
  const float* sizes = a.sizes == nullptr ? nullptr : a.sizes + image * a.tokens;
  const T* x = a.x + image * a.tokens * a.width;
  const int begin = offsets[0];
  const int end = offsets[1];
  float total = 0.0F;
  for (int i = begin; i < end; ++i) total += sizes == nullptr ? 1.0F : sizes[members[i]];
  for_each_stretch<V>(a.width, [&](std::int64_t first) {
    float sums[kBatch][V] = {};
    for (int i = begin; i < end; ++i) {
      const int member = members[i];
      const float share = (sizes == nullptr ? 1.0F : sizes[member]) / total;
      add_row<V>(sums, x + member * a.width, share, first, a.width);
    }
    store_row<V>(a.merged + row * a.width, sums, first, a.width);
  });
  if (threadIdx.x % 32 != 0) return;
  if (a.merged_sizes != nullptr) a.merged_sizes[row] = total;
  if (a.log_sizes != nullptr) a.log_sizes[row] = logf(total);
}

template <int V, typename T>
__global__ void __launch_bounds__(kRowThreads) add_up_kernel(TokenUnmergeBackward<T> a) {
  const std::int64_t row = row_of_warp();
  if (row >= a.batch * a.new_tokens) return;
  const std::int64_t image = row / a.new_tokens;
  const std::int32_t* offsets = a.offsets + image + row;
  const std::int32_t* members = a.members + image * a.tokens;
  const T* grads = a.grad_out + image * a.tokens * a.width;
  const int begin = offsets[0];
  const int end = offsets[1];
  for_each_stretch<V>(a.width, [&](std::int64_t first) {
    float sums[kBatch][V] = {};
    for (int i = begin; i < end; ++i) {
      add_row<V>(sums, grads + members[i] * a.width, 1.0F, first, a.width);
    }
    store_row<V>(a.grad_x + row * a.width, sums, first, a.width);
  });
}

/// to[n] = share * from[positions[n]].
template <typename T>
struct Gather {
  std::int64_t rows;        ///< B N
  std::int64_t tokens;      ///< N
  std::int64_t new_tokens;  ///< N'
  std::int64_t width;
  const T* from;
  const float* sizes;         ///< null: 1
  const float* merged_sizes;  ///< null: 1
  const std::int32_t* positions;
  T* to;
};

template <int V, typename T>
__global__ void __launch_bounds__(kRowThreads) gather_kernel(Gather<T> a) {
  const std::int64_t row = row_of_warp();
  if (row >= a.rows) return;
  const std::int64_t source = row / a.tokens * a.new_tokens + a.positions[row];
  const float size = a.sizes == nullptr ? 1.0F : a.sizes[row];
  const float share = a.merged_sizes == nullptr ? size : size / a.merged_sizes[source];
  for_each_stretch<V>(a.width, [&](std::int64_t first) {
    float sums[kBatch][V] = {};
    add_row<V>(sums, a.from + source * a.width, share, first, a.width);
    store_row<V>(a.to + row * a.width, sums, first, a.width);
  });
}

template <typename T>
bool is_wide(std::int64_t width, const T* from, const T* to) {
  return width % kWide<T> == 0 && is_aligned(from, 16) && is_aligned(to, 16);
}

void check_sizes(std::int64_t batch, std::int64_t tokens, std::int64_t new_tokens,
                 std::int64_t width) {
  ABLATE_CHECK(batch >= 0 && new_tokens >= 0 && new_tokens <= tokens && width >= 0, batch, " x ",
               tokens, " tokens of width ", width, " in ", new_tokens, " groups");
}

template <typename T>
void gather(const Gather<T>& arguments, Stream stream) {
  const Rows rows{arguments.rows, arguments.width};
  if (rows.count == 0 || rows.width == 0) return;
  if (is_wide(rows.width, arguments.from, arguments.to)) {
    gather_kernel<kWide<T>><<<rows.blocks(), kRowThreads, 0, stream>>>(arguments);
  } else {
    gather_kernel<1><<<rows.blocks(), kRowThreads, 0, stream>>>(arguments);
  }
  check_launch();
}

}  // namespace

template <typename T>
void merge_tokens(const TokenMerge<T>& arguments, Stream stream) {
  check_sizes(arguments.batch, arguments.tokens, arguments.new_tokens, arguments.width);
  const Rows rows{arguments.batch * arguments.new_tokens, arguments.width};
  if (rows.count == 0) return;
  if (is_wide(rows.width, arguments.x, arguments.merged)) {
    merge_kernel<kWide<T>><<<rows.blocks(), kRowThreads, 0, stream>>>(arguments);
  } else {
    merge_kernel<1><<<rows.blocks(), kRowThreads, 0, stream>>>(arguments);
  }
  check_launch();
}

template <typename T>
void merge_tokens_backward(const TokenMergeBackward<T>& a, Stream stream) {
  check_sizes(a.batch, a.tokens, a.new_tokens, a.width);
  gather(Gather<T>{.rows = a.batch * a.tokens,
                   .tokens = a.tokens,
                   .new_tokens = a.new_tokens,
                   .width = a.width,
                   .from = a.grad_merged,
                   .sizes = a.sizes,
                   .merged_sizes = a.merged_sizes,
                   .positions = a.positions,
                   .to = a.grad_x},
         stream);
}

template <typename T>
void unmerge_tokens(const TokenUnmerge<T>& a, Stream stream) {
  check_sizes(a.batch, a.tokens, a.new_tokens, a.width);
  gather(Gather<T>{.rows = a.batch * a.tokens,
                   .tokens = a.tokens,
                   .new_tokens = a.new_tokens,
                   .width = a.width,
                   .from = a.x,
                   .sizes = nullptr,
                   .merged_sizes = nullptr,
                   .positions = a.positions,
                   .to = a.out},
         stream);
}

template <typename T>
void unmerge_tokens_backward(const TokenUnmergeBackward<T>& arguments, Stream stream) {
  check_sizes(arguments.batch, arguments.tokens, arguments.new_tokens, arguments.width);
  const Rows rows{arguments.batch * arguments.new_tokens, arguments.width};
  if (rows.count == 0 || rows.width == 0) return;
  if (is_wide(rows.width, arguments.grad_out, arguments.grad_x)) {
    add_up_kernel<kWide<T>><<<rows.blocks(), kRowThreads, 0, stream>>>(arguments);
  } else {
    add_up_kernel<1><<<rows.blocks(), kRowThreads, 0, stream>>>(arguments);
  }
  check_launch();
}

template void merge_tokens(const TokenMerge<float>&, Stream);
template void merge_tokens(const TokenMerge<bfloat16>&, Stream);
template void merge_tokens_backward(const TokenMergeBackward<float>&, Stream);
template void merge_tokens_backward(const TokenMergeBackward<bfloat16>&, Stream);
template void unmerge_tokens(const TokenUnmerge<float>&, Stream);
template void unmerge_tokens(const TokenUnmerge<bfloat16>&, Stream);
template void unmerge_tokens_backward(const TokenUnmergeBackward<float>&, Stream);
template void unmerge_tokens_backward(const TokenUnmergeBackward<bfloat16>&, Stream);

}  // namespace ablate::kernels
