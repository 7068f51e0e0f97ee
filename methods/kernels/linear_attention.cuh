#pragma once

#include "methods/kernels/linear_attention.h"
#include "methods/kernels/tile.cuh"

namespace ablate::kernels {

// What the forward and the backward kernel of linear attention share. A block is one head: D / 16
// warps, of which warp w sums rows 16 w to 16 w + 15 of the (D, D) products over tokens, and tokens
// pass in blocks of D. Matrices are in shared memory as tile.cuh has them.

template <int D>
struct LinearBlock {
  static constexpr int kWarps = D / 16;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kRows = D;  ///< of tokens in shared memory, and of a product
  static constexpr std::uint32_t kBytes = kRows * Tile<D>::kRowBytes;
};

/// One head of one image.
struct LinearPlace {
  std::int64_t image, head;
  int tokens, channels;  ///< channels before the head

  template <int D>
  __device__ __forceinline__ static LinearPlace of(const AttentionShape& shape) {
    const auto heads = static_cast<unsigned>(shape.heads);
    const unsigned image = blockIdx.x / heads;
    const unsigned head = blockIdx.x % heads;
    return {image, head, static_cast<int>(shape.tokens), static_cast<int>(head) * D};
  }
  template <typename T>
  __device__ __forceinline__ T* rows(const TokenRows<T>& all, int first) const {
    return all.data + (image * tokens + first) * all.stride + channels;
  }
};

/// sums (16 x D) += left (K x D)^T right (K x D), of which this warp does its 16 columns of left;
/// both are blocks of LinearBlock::kRows rows.
template <int D>
__device__ __forceinline__ void multiply_blocks(typename Tile<D>::Sums& sums, std::uint32_t left,
                                                std::uint32_t right) {
  left = (left + Tile<D>::row_lane()) ^ static_cast<std::uint32_t>(warp_index() * 32);
  right += Tile<D>::column_lane();
#pragma unroll
  for (int group = 0; group < LinearBlock<D>::kRows / 16; ++group) {
    std::uint32_t columns[4];
    load_matrices_transposed(columns, left + group * Tile<D>::kBytes);
    multiply_columns<D>(sums, columns, right + group * Tile<D>::kBytes);
  }
}

/// The sums over K rows of left, each times its weight: entry 0 of `sums` is that of this warp's
/// column l / 4, entry 2 that of 8 more. Weights come as pairs of bfloat16, lane % 4 has those of
/// rows 2 (l % 4), + 1 and of 8 more, by weights(16-row group, half).
template <int D, typename Weights>
__device__ __forceinline__ void add_weighted_rows(float (&sums)[4], std::uint32_t left,
                                                  const Weights& weights) {
  left = (left + Tile<D>::row_lane()) ^ static_cast<std::uint32_t>(warp_index() * 32);
#pragma unroll
  for (int group = 0; group < LinearBlock<D>::kRows / 16; ++group) {
    std::uint32_t columns[4];
    load_matrices_transposed(columns, left + group * Tile<D>::kBytes);
    multiply_add(sums, columns, weights(group, 0), weights(group, 1));
  }
}

/// This warp's rows of a product, rounded, and its column of sums.
template <int D>
__device__ __forceinline__ void store_product(std::uint32_t to, const typename Tile<D>::Sums& sums,
                                              float* column, const float (&column_sums)[4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = 16 * warp_index() + lane / 4;
#pragma unroll
  for (int group = 0; group < Tile<D>::kGroups; ++group) {
    const auto word = static_cast<std::uint32_t>(lane % 4 * 4);
    store_word(to + Tile<D>::offset(row, group) + word,
               pack_bfloat16(sums[group][0], sums[group][1]));
    store_word(to + Tile<D>::offset(row + 8, group) + word,
               pack_bfloat16(sums[group][2], sums[group][3]));
  }
  if (lane % 4 == 0) {
    column[row] = column_sums[0];
    column[row + 8] = column_sums[2];
  }
}

/// k^T v in `product` and the sums of k in `key_sums`; `keys` and `values` are room for a block of
/// rows each. Ends with a barrier.
template <int D>
__device__ __forceinline__ void sum_keys(const LinearAttention& a, const LinearPlace& place,
                                         std::uint32_t keys, std::uint32_t values,
                                         std::uint32_t product, float* key_sums) {
  constexpr int kRows = LinearBlock<D>::kRows;
  constexpr std::uint32_t kOnes = 0x3f803f80U;
  typename Tile<D>::Sums sums = {};
  float column_sums[4] = {};
  for (int first = 0; first < place.tokens; first += kRows) {
    const int valid = min(kRows, place.tokens - first);
    start_row_copies<D>(keys, place.rows(a.k, first), a.k.stride, valid, kRows);
    start_row_copies<D>(values, place.rows(a.v, first), a.v.stride, valid, kRows);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    multiply_blocks<D>(sums, keys, values);
    add_weighted_rows<D>(column_sums, keys, [](int, int) { return kOnes; });
    __syncthreads();  // before the next rows come
  }
  store_product<D>(product, sums, key_sums, column_sums);
  __syncthreads();
}

/// Products of rows l / 4 and that + 8 of a left factor with a vector, in all lanes of the quad.
template <int D>
__device__ __forceinline__ float2 multiply_vector(const typename Tile<D>::Operand& left,
                                                  const float* vector) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float2 sum = make_float2(0.0F, 0.0F);
#pragma unroll
  for (int step = 0; step < Tile<D>::kSteps; ++step) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 pair =
          *reinterpret_cast<const float2*>(vector + 16 * step + 8 * half + lane % 4 * 2);
      const std::uint32_t low = left[step][2 * half];
      const std::uint32_t high = left[step][2 * half + 1];
      sum.x += __uint_as_float(low << 16) * pair.x + __uint_as_float(low & 0xffff0000U) * pair.y;
      sum.y += __uint_as_float(high << 16) * pair.x + __uint_as_float(high & 0xffff0000U) * pair.y;
    }
  }
  return make_float2(warp_sum<4>(sum.x), warp_sum<4>(sum.y));
}

void check_linear_attention(const LinearAttention& a);

}  // namespace ablate::kernels
