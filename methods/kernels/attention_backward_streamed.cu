#include "methods/kernels/attention_gradient.cuh"

namespace ablate::kernels {
namespace {

struct StreamedParameters {
  AttentionBackward a;
  float* deltas = nullptr;    ///< (B, H, N)
  float* partials = nullptr;  ///< (B, blocks of a head, 3, H, d), or null
  float factor = 0.0F;        ///< to units of log 2
  float scale = 0.0F;         ///< 1 / sqrt(d)
};

/// D of one row of a head in d / 8 lanes.
template <int D>
__global__ void __launch_bounds__(kStreamedThreads) delta_kernel(StreamedParameters p) {
  constexpr int kRows = kStreamedThreads / Tile<D>::kChunks;
  const HeadPlace<D> place(p.a.shape, blockIdx.x);
  const int row =
      static_cast<int>(blockIdx.y) * kRows + static_cast<int>(threadIdx.x) / Tile<D>::kChunks;
  const int chunk = static_cast<int>(threadIdx.x) % Tile<D>::kChunks;
  const bool exists = row < static_cast<int>(p.a.shape.tokens);
  float x[8] = {}, y[8] = {};
  if (exists) {
    const std::int64_t index = place.unpacked + row * place.part + chunk * 8;
    load(p.a.out + index, x);
    load(p.a.grad_out + index, y);
  }
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(x[i], y[i], sum);
  sum = warp_sum<Tile<D>::kChunks>(sum);
  if (exists && chunk == 0) p.deltas[place.row + row] = sum;
}

/// The block's sum of one part of the bias gradient: totals of the warps in their order.
template <int D>
__device__ __forceinline__ void write_partial(const StreamedParameters& p,
                                              const HeadPlace<D>& place, int which,
                                              const ColumnTotals<D>& totals, float (*of_warps)[D]) {
#pragma unroll
  for (int i = 0; i < ColumnTotals<D>::kMine; ++i) {
    of_warps[threadIdx.x / 32][ColumnTotals<D>::column() + i] = totals.totals[i];
  }
  __syncthreads();
  if (threadIdx.x < D) {
    float sum = 0.0F;
    for (int warp = 0; warp < kStreamedWarps; ++warp) sum += of_warps[warp][threadIdx.x];
    const std::int64_t slice = place.image * gridDim.y + blockIdx.y;
    p.partials[slice * place.packed_stride + which * place.part + place.head * D + threadIdx.x] =
        sum;
  }
  __syncthreads();
}

/// A block takes 16 keys a warp; the queries and grad_out pass through two buffers.
template <int D, bool kBias>
__global__ void __launch_bounds__(kStreamedThreads, kWarpsPerSm / kStreamedWarps)
    keys_kernel(StreamedParameters p) {
  constexpr int kBytes = kStreamedRows * Tile<D>::kRowBytes;
  __shared__ __align__(128) unsigned char memory[4 * kBytes];
  __shared__ __align__(8) float stats[2][2][kStreamedRows];  // log-sums and D of a buffer
  __shared__ float of_warps[kStreamedWarps][D];
  const int tokens = static_cast<int>(p.a.shape.tokens);
  const HeadPlace<D> place(p.a.shape, blockIdx.x);
  const bfloat16* queries = p.a.qkv + place.packed;
  const std::uint32_t buffers = shared_address(memory);
  const int first_key = (static_cast<int>(blockIdx.y) * kStreamedWarps + warp_index()) * 16;
  const int valid = tokens - first_key;

  const auto start_block = [&](int first) {
    const int buffer = first / kStreamedRows % 2;
    const int rows = min(tokens - first, kStreamedRows);
    const std::uint32_t to = buffers + buffer * 2 * kBytes;
    start_row_copies<D>(to, queries + first * place.packed_stride, place.packed_stride, rows,
                        kStreamedRows);
    start_row_copies<D>(to + kBytes, p.a.grad_out + place.unpacked + first * place.part, place.part,
                        rows, kStreamedRows);
    const int row = static_cast<int>(threadIdx.x);
    if (row < kStreamedRows) {
      const bool exists = row < rows;
      const std::int64_t index = place.row + first + row;
      stats[buffer][0][row] = exists ? -kLog2E * p.a.log_sum_exp[index] : -INFINITY;
      stats[buffer][1][row] = exists ? p.deltas[index] : 0.0F;
    }
  };
  start_block(0);
  commit_copies();
  KeyGradientRows<D> rows;
  {
    const bfloat16* keys = queries + place.part + first_key * place.packed_stride;
    PendingOperand<D> pending_keys, pending_values;
    pending_keys.start(keys, place.packed_stride, valid);
    pending_values.start(keys + place.part, place.packed_stride, valid);
    pending_keys.finish(rows.keys);
    pending_values.finish(rows.values);
  }
  if (kBias) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = static_cast<int>(threadIdx.x) % 32 / 4 + 8 * half;
      rows.bias[half] =
          row < valid ? kLog2E * p.a.key_bias[place.image * tokens + first_key + row] : -INFINITY;
    }
  }
  for (int first = 0; first < tokens; first += kStreamedRows) {
    if (first + kStreamedRows < tokens) start_block(first + kStreamedRows);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const int buffer = first / kStreamedRows % 2;
    const std::uint32_t at = buffers + buffer * 2 * kBytes;
    VisitedQueries visited{at + Tile<D>::row_lane(), at + Tile<D>::column_lane(), kBytes,
                           stats[buffer][0], kStreamedRows};
    const int tiles = row_tiles(min(tokens - first, kStreamedRows));
    for (int i = 0; i < tiles; ++i) {
      std::uint32_t grad_scores[4];
      visit<D, kBias>(rows, visited, p.factor, grad_scores);
      visited.next<D>();
    }
    __syncthreads();
  }
  bfloat16* to = p.a.grad_qkv + place.packed + place.part + first_key * place.packed_stride;
  store_rows<D>(to, place.packed_stride, valid, rows.grad_keys, p.scale, p.scale);
  store_rows<D>(to + place.part, place.packed_stride, valid, rows.grad_values, 1.0F, 1.0F);
  if (p.partials == nullptr) return;
  ColumnTotals<D> of_keys, of_values;
  of_keys.add(rows.grad_keys, p.scale, valid);
  of_values.add(rows.grad_values, 1.0F, valid);
  write_partial<D>(p, place, 1, of_keys, of_warps);
  write_partial<D>(p, place, 2, of_values, of_warps);
}

/// A block takes 16 queries a warp; keys and values pass through two buffers.
template <int D, bool kBias>
__global__ void __launch_bounds__(kStreamedThreads, kWarpsPerSm / kStreamedWarps)
    queries_kernel(StreamedParameters p) {
  constexpr int kBytes = kStreamedRows * Tile<D>::kRowBytes;
  __shared__ __align__(128) unsigned char memory[4 * kBytes];
  __shared__ __align__(8) float bias[2][kStreamedRows];
  __shared__ float of_warps[kStreamedWarps][D];
  const int tokens = static_cast<int>(p.a.shape.tokens);
  const HeadPlace<D> place(p.a.shape, blockIdx.x);
  const bfloat16* queries = p.a.qkv + place.packed;
  const std::uint32_t buffers = shared_address(memory);
  const int first_query = (static_cast<int>(blockIdx.y) * kStreamedWarps + warp_index()) * 16;
  const int valid = tokens - first_query;

  const auto start_block = [&](int first) {
    const int buffer = first / kStreamedRows % 2;
    const int rows = min(tokens - first, kStreamedRows);
    start_row_copies<D, 2>(buffers + buffer * 2 * kBytes,
                           queries + place.part + first * place.packed_stride, place.packed_stride,
                           rows, kStreamedRows, place.part);
    if (kBias) {
      load_key_bias(bias[buffer], p.a.key_bias + place.image * tokens + first, rows, kStreamedRows);
    }
  };
  start_block(0);
  commit_copies();
  QueryGradientRows<D> rows;
  {
    PendingOperand<D> pending_queries, pending_grads;
    pending_queries.start(queries + first_query * place.packed_stride, place.packed_stride, valid);
    pending_grads.start(p.a.grad_out + place.unpacked + first_query * place.part, place.part,
                        valid);
    pending_queries.finish(rows.queries);
    pending_grads.finish(rows.grads);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = static_cast<int>(threadIdx.x) % 32 / 4 + 8 * half;
    const std::int64_t index = place.row + first_query + row;
    rows.minus_log_sums[half] = row < valid ? -kLog2E * p.a.log_sum_exp[index] : -INFINITY;
    rows.deltas[half] = row < valid ? p.deltas[index] : 0.0F;
  }
  for (int first = 0; first < tokens; first += kStreamedRows) {
    if (first + kStreamedRows < tokens) start_block(first + kStreamedRows);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const int buffer = first / kStreamedRows % 2;
    const std::uint32_t at = buffers + buffer * 2 * kBytes;
    const int keys = min(tokens - first, kStreamedRows);
    const VisitedKeys visited{at + Tile<D>::row_lane(), at + Tile<D>::column_lane(), kBytes,
                              bias[buffer]};
    visit_all<D, kBias>(rows, visited, row_tiles(keys), p.factor, keys);
    __syncthreads();
  }
  store_rows<D>(p.a.grad_qkv + place.packed + first_query * place.packed_stride,
                place.packed_stride, valid, rows.grad_queries, p.scale, p.scale);
  if (p.partials == nullptr) return;
  ColumnTotals<D> of_queries;
  of_queries.add(rows.grad_queries, p.scale, valid);
  write_partial<D>(p, place, 0, of_queries, of_warps);
}

unsigned blocks_of_head(std::int64_t tokens) {
  return static_cast<unsigned>(ceil_div<std::int64_t>(tokens, kStreamedWarps * 16));
}

template <int D>
void launch_streamed(const StreamedParameters& parameters, Stream stream) {
  const AttentionShape& shape = parameters.a.shape;
  const auto heads = static_cast<unsigned>(shape.batch * shape.heads);
  const auto delta_blocks = static_cast<unsigned>(
      ceil_div<std::int64_t>(shape.tokens, kStreamedThreads / Tile<D>::kChunks));
  delta_kernel<D><<<dim3(heads, delta_blocks), kStreamedThreads, 0, stream>>>(parameters);
  check_launch();
  const dim3 grid(heads, blocks_of_head(shape.tokens));
  if (parameters.a.key_bias != nullptr) {
    keys_kernel<D, true><<<grid, kStreamedThreads, 0, stream>>>(parameters);
    check_launch();
    queries_kernel<D, true><<<grid, kStreamedThreads, 0, stream>>>(parameters);
  } else {
    keys_kernel<D, false><<<grid, kStreamedThreads, 0, stream>>>(parameters);
    check_launch();
    queries_kernel<D, false><<<grid, kStreamedThreads, 0, stream>>>(parameters);
  }
  check_launch();
}

}  // namespace

std::int64_t streamed_bias_slices(const AttentionShape& shape) {
  return shape.batch * blocks_of_head(shape.tokens);
}

void attention_backward_streamed(const AttentionBackward& arguments, float* deltas, float* partials,
                                 Stream stream) {
  const int dim = arguments.shape.head_dim;
  const StreamedParameters parameters{.a = arguments,
                                      .deltas = deltas,
                                      .partials = partials,
                                      .factor = score_factor(dim),
                                      .scale = 1.0F / std::sqrt(static_cast<float>(dim))};
  dim == 64 ? launch_streamed<64>(parameters, stream) : launch_streamed<32>(parameters, stream);
}

}  // namespace ablate::kernels
