#pragma once

#include "methods/kernels/attention_gradient.cuh"

namespace ablate::kernels {

// The backward pass of a head that fits into shared memory, task by task.

inline constexpr int kMostExchangedTiles =
    8;  ///< two blocks of so many warps share a multiprocessor
inline constexpr int kMostResidentWarps = 16;
inline constexpr int kMostResidentTiles = 32;

/// Who does what: warp w takes the tasks from first[w] to first[w + 1]. Task t < tiles are keys,
/// task tiles + t queries.
struct Schedule {
  std::uint8_t first[kMostResidentWarps + 1] = {};
  std::uint8_t task[2 * kMostResidentTiles] = {};
};

struct ResidentParameters {
  AttentionBackward a;
  float* partials = nullptr;  ///< (B, 3, H, d), or null
  float factor = 0.0F;        ///< to units of log 2
  float scale = 0.0F;         ///< 1 / sqrt(d)
  Schedule schedule;          ///< without exchange
};

/// Addresses in the shared memory of a block: q, k, v and grad_out of a head, what softmax needs,
/// and with exchange grad_S^T (keys, queries) with rows of 16 * an odd number of bytes: the same
/// columns of eight neighbouring rows lie in different banks.
template <int D>
struct ResidentMemory {
  unsigned char* begin;
  int tiles;

  __device__ __forceinline__ std::uint32_t part(int which) const {
    return shared_address(begin) + which * tiles * Tile<D>::kBytes;
  }
  __device__ __forceinline__ float* minus_log_sums() const {
    return reinterpret_cast<float*>(begin + 4 * tiles * Tile<D>::kBytes);
  }
  __device__ __forceinline__ float* deltas() const { return minus_log_sums() + 16 * tiles; }
  __device__ __forceinline__ float* bias() const { return minus_log_sums() + 32 * tiles; }
  __device__ __forceinline__ unsigned char* grad_scores() const {
    return reinterpret_cast<unsigned char*>(minus_log_sums() + 48 * tiles);
  }
  __device__ __forceinline__ int grad_score_row() const { return 32 * tiles + 16; }

  static std::size_t bytes(int tiles, bool exchange) {
    const int rows = 16 * tiles;
    const int exchanged = exchange ? rows * (32 * tiles + 16) : 0;
    return static_cast<std::size_t>(4 * tiles * Tile<D>::kBytes + 3 * rows * 4 + exchanged);
  }
};

template <int D>
__device__ __forceinline__ void load_log_sums(const AttentionBackward& a, const HeadPlace<D>& place,
                                              const ResidentMemory<D>& memory) {
  const int step = static_cast<int>(blockDim.x);
  for (int row = static_cast<int>(threadIdx.x); row < 16 * memory.tiles; row += step) {
    const bool exists = row < static_cast<int>(a.shape.tokens);
    memory.minus_log_sums()[row] = exists ? -kLog2E * a.log_sum_exp[place.row + row] : -INFINITY;
  }
}

/// D of all rows. A thread takes the chunks of grad_out that it has itself started to copy, with no
/// copies after them: so it waits for its own only, with its part of `out` on the way meanwhile.
template <int D>
__device__ __forceinline__ void write_deltas(const AttentionBackward& a, const HeadPlace<D>& place,
                                             const ResidentMemory<D>& memory) {
  constexpr int kBatch = 8;
  const int rows = 16 * memory.tiles;
  const int chunk = static_cast<int>(threadIdx.x) % Tile<D>::kChunks;
  const int step = static_cast<int>(blockDim.x) / Tile<D>::kChunks;
  const int first = static_cast<int>(threadIdx.x) / Tile<D>::kChunks;
  const bfloat16* from = a.out + place.unpacked + first * place.part + chunk * 8;
  const unsigned char* grads = memory.begin + 3 * memory.tiles * Tile<D>::kBytes;
  for (int done = 0; done < rows; done += kBatch * step) {
    Packed<8, bfloat16> batch[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      batch[i].clear();
      if (first + done + i * step < static_cast<int>(a.shape.tokens)) batch[i].load(from);
      from += step * place.part;
    }
    wait_copies<0>();
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int row = first + done + i * step;
      float x[8], y[8] = {};
      batch[i].unpack(x);
      if (row < rows)
        load(reinterpret_cast<const bfloat16*>(grads + Tile<D>::offset(row, chunk)), y);
      float sum = 0.0F;
#pragma unroll
      for (int j = 0; j < 8; ++j) sum = fmaf(x[j], y[j], sum);
      sum = warp_sum<Tile<D>::kChunks>(sum);
      if (row < rows && chunk == 0) memory.deltas()[row] = sum;
    }
  }
}

/// Column sums of the three gradients over the rows of one warp.
template <int D>
using BiasTotals = ColumnTotals<D>[3];

/// grad_k and grad_v of 16 keys; with kExchange grad_S^T of them goes to shared memory.
template <int D, bool kBias, bool kExchange>
__device__ __forceinline__ void key_task(const ResidentParameters& p, const HeadPlace<D>& place,
                                         const ResidentMemory<D>& memory, int tile,
                                         BiasTotals<D>& totals) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int valid = static_cast<int>(p.a.shape.tokens) - tile * 16;
  const std::uint32_t place_in_part = tile * Tile<D>::kBytes + Tile<D>::column_lane();
  KeyGradientRows<D> rows;
  load_operand<D>(rows.keys, memory.part(1) + place_in_part);
  load_operand<D>(rows.values, memory.part(2) + place_in_part);
  if (kBias) {
    rows.bias[0] = memory.bias()[tile * 16 + lane / 4];
    rows.bias[1] = memory.bias()[tile * 16 + lane / 4 + 8];
  }
  VisitedQueries visited{memory.part(0) + Tile<D>::row_lane(),
                         memory.part(0) + Tile<D>::column_lane(), memory.part(3) - memory.part(0),
                         memory.minus_log_sums(), 16 * memory.tiles};
  const int pitch = memory.grad_score_row();
  std::uint32_t exchanged =
      shared_address(memory.grad_scores()) + (tile * 16 + lane / 4) * pitch + lane % 4 * 4;
  // Whatever the weight of a key that does not exist: it must not count for grad_q.
  const bool exists[2] = {lane / 4 < valid, lane / 4 + 8 < valid};
  for (int i = 0; i < memory.tiles; ++i) {
    std::uint32_t grad_scores[4];
    visit<D, kBias>(rows, visited, p.factor, grad_scores);
    visited.next<D>();
    if constexpr (kExchange) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        store_word(exchanged + j % 2 * 8 * pitch + j / 2 * 16, exists[j % 2] ? grad_scores[j] : 0);
      }
      exchanged += 32;
    }
  }
  if (p.partials != nullptr) {
    totals[1].add(rows.grad_keys, p.scale, valid);
    totals[2].add(rows.grad_values, 1.0F, valid);
  }
  bfloat16* to = p.a.grad_qkv + place.packed + tile * 16 * place.packed_stride;
  store_rows<D>(to + place.part, place.packed_stride, valid, rows.grad_keys, p.scale, p.scale);
  store_rows<D>(to + 2 * place.part, place.packed_stride, valid, rows.grad_values, 1.0F, 1.0F);
}

/// grad_q of 16 queries, with grad_S computed again.
template <int D, bool kBias>
__device__ __forceinline__ void recompute(const ResidentParameters& p,
                                          const ResidentMemory<D>& memory, int tile,
                                          typename Tile<D>::Sums& grad_queries) {
  const int row = tile * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  const std::uint32_t place_in_part = tile * Tile<D>::kBytes + Tile<D>::column_lane();
  QueryGradientRows<D> rows;
  load_operand<D>(rows.queries, memory.part(0) + place_in_part);
  load_operand<D>(rows.grads, memory.part(3) + place_in_part);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    rows.minus_log_sums[half] = memory.minus_log_sums()[row + 8 * half];
    rows.deltas[half] = memory.deltas()[row + 8 * half];
  }
  const VisitedKeys visited{memory.part(1) + Tile<D>::row_lane(),
                            memory.part(1) + Tile<D>::column_lane(),
                            memory.part(2) - memory.part(1), memory.bias()};
  visit_all<D, kBias>(rows, visited, memory.tiles, p.factor, static_cast<int>(p.a.shape.tokens));
#pragma unroll
  for (int group = 0; group < Tile<D>::kGroups; ++group) {
#pragma unroll
    for (int i = 0; i < 4; ++i) grad_queries[group][i] = rows.grad_queries[group][i];
  }
}

/// grad_q of 16 queries from grad_S^T in shared memory.
template <int D>
__device__ __forceinline__ void collect(const ResidentMemory<D>& memory, int tile,
                                        typename Tile<D>::Sums& grad_queries) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int pitch = memory.grad_score_row();
  std::uint32_t exchanged = shared_address(memory.grad_scores()) +
                            ((lane & 7) + (lane >> 4) * 8) * pitch + tile * 32 +
                            (lane >> 3 & 1) * 16;
  std::uint32_t keys = memory.part(1) + Tile<D>::column_lane();
  for (int i = 0; i < memory.tiles; ++i) {
    std::uint32_t grad_scores[4];
    load_matrices_transposed(grad_scores, exchanged);
    multiply_columns<D>(grad_queries, grad_scores, keys);
    exchanged += 16 * pitch;
    keys += Tile<D>::kBytes;
  }
}

template <int D, bool kBias, bool kExchange>
__device__ __forceinline__ void query_task(const ResidentParameters& p, const HeadPlace<D>& place,
                                           const ResidentMemory<D>& memory, int tile,
                                           BiasTotals<D>& totals) {
  const int valid = static_cast<int>(p.a.shape.tokens) - tile * 16;
  typename Tile<D>::Sums grad_queries = {};
  if constexpr (kExchange) {
    collect<D>(memory, tile, grad_queries);
  } else {
    recompute<D, kBias>(p, memory, tile, grad_queries);
  }
  if (p.partials != nullptr) totals[0].add(grad_queries, p.scale, valid);
  store_rows<D>(p.a.grad_qkv + place.packed + tile * 16 * place.packed_stride, place.packed_stride,
                valid, grad_queries, p.scale, p.scale);
}

/// Adds the totals of the warps up in their order, through the memory of q.
template <int D>
__device__ __forceinline__ void write_partials(const ResidentParameters& p,
                                               const HeadPlace<D>& place,
                                               const ResidentMemory<D>& memory,
                                               const BiasTotals<D>& totals) {
  auto* of_warps = reinterpret_cast<float*>(memory.begin);  // (warps, 3, D)
  const int threads = static_cast<int>(blockDim.x);
  __syncthreads();
#pragma unroll
  for (int which = 0; which < 3; ++which) {
#pragma unroll
    for (int i = 0; i < ColumnTotals<D>::kMine; ++i) {
      of_warps[(static_cast<int>(threadIdx.x) / 32 * 3 + which) * D + ColumnTotals<D>::column() +
               i] = totals[which].totals[i];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 3 * D; i += threads) {
    float sum = 0.0F;
    for (int warp = 0; warp < threads / 32; ++warp) sum += of_warps[warp * 3 * D + i];
    p.partials[place.image * place.packed_stride + i / D * place.part + place.head * D + i % D] =
        sum;
  }
}

}  // namespace ablate::kernels
