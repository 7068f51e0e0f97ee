#include "methods/kernels/cuda_check.h"
#include "methods/kernels/linear_attention.cuh"
#include "runner/core/error.h"

namespace ablate::kernels {
namespace {

// With z the normaliser of a query, e = dout / z and c = -(dout . out) / z:
//   dq = e (k^T v)^T + c sum(k),  P = q^T e,  s = sum of c q over queries
//   dv = k P,  dk = v P^T + s

/// A block's shared memory.
template <int D>
struct BackwardMemory {
  static constexpr std::uint32_t kBytes = LinearBlock<D>::kBytes;
  __align__(128) unsigned char tiles[3 * kBytes];
  __align__(16) float key_sums[D];
  __align__(16) float query_sums[D];
  float weights[LinearBlock<D>::kRows];  ///< c of a block of queries

  __device__ __forceinline__ std::uint32_t tile(int i) const {
    return shared_address(tiles) + static_cast<std::uint32_t>(i) * kBytes;
  }
};

/// sums (16 x D) = left times the transpose of a (D, D) matrix.
template <int D>
__device__ __forceinline__ void multiply_transposed(typename Tile<D>::Sums& sums,
                                                    const typename Tile<D>::Operand& left,
                                                    std::uint32_t matrix) {
#pragma unroll
  for (int block = 0; block < D / 16; ++block) {
    float part[2][4] = {};
    multiply_rows<D>(part, left, matrix + Tile<D>::row_lane() + block * Tile<D>::kBytes);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[2 * block + half][i] = part[half][i];
    }
  }
}

/// sums += weight of rows l / 4 and that + 8, times the vector.
template <int D>
__device__ __forceinline__ void add_outer(typename Tile<D>::Sums& sums, float2 weight,
                                          const float* vector) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int group = 0; group < Tile<D>::kGroups; ++group) {
    const float2 pair = *reinterpret_cast<const float2*>(vector + 8 * group + lane % 4 * 2);
    sums[group][0] = fmaf(weight.x, pair.x, sums[group][0]);
    sums[group][1] = fmaf(weight.x, pair.y, sums[group][1]);
    sums[group][2] = fmaf(weight.y, pair.x, sums[group][2]);
    sums[group][3] = fmaf(weight.y, pair.y, sums[group][3]);
  }
}

__device__ __forceinline__ std::uint32_t scaled(std::uint32_t pair, float factor) {
  return pack_bfloat16(__uint_as_float(pair << 16) * factor,
                       __uint_as_float(pair & 0xffff0000U) * factor);
}

__device__ __forceinline__ float pair_product(std::uint32_t a, std::uint32_t b) {
  return __uint_as_float(a << 16) * __uint_as_float(b << 16) +
         __uint_as_float(a & 0xffff0000U) * __uint_as_float(b & 0xffff0000U);
}

/// Products of rows l / 4 and that + 8 of two left factors.
template <int D>
__device__ __forceinline__ float2 row_products(const typename Tile<D>::Operand& a,
                                               const typename Tile<D>::Operand& b) {
  float2 sum = make_float2(0.0F, 0.0F);
#pragma unroll
  for (int step = 0; step < Tile<D>::kSteps; ++step) {
    sum.x += pair_product(a[step][0], b[step][0]) + pair_product(a[step][2], b[step][2]);
    sum.y += pair_product(a[step][1], b[step][1]) + pair_product(a[step][3], b[step][3]);
  }
  return make_float2(warp_sum<4>(sum.x), warp_sum<4>(sum.y));
}

/// A left factor as this warp's 16 rows of a block in shared memory.
template <int D>
__device__ __forceinline__ void store_operand(std::uint32_t to,
                                              const typename Tile<D>::Operand& operand) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = 16 * warp_index() + lane / 4;
#pragma unroll
  for (int step = 0; step < Tile<D>::kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      store_word(to + Tile<D>::offset(row + i % 2 * 8, 2 * step + i / 2) +
                     static_cast<std::uint32_t>(lane % 4 * 4),
                 operand[step][i]);
    }
  }
}

template <int D>
__device__ __forceinline__ void load_left(typename Tile<D>::Operand& to, const bfloat16* rows,
                                          std::int64_t stride, int valid) {
  PendingOperand<D> pending;
  pending.start(rows, stride, valid);
  pending.finish(to);
}

/// This warp's 16 queries of a block that begins at `first`: writes dq; leaves q and e in tiles 0
/// and 1 and c in `weights`.
template <int D>
__device__ __forceinline__ void query_rows(const LinearAttentionBackward& b,
                                           const LinearPlace& place, BackwardMemory<D>& memory,
                                           int first) {
  using Operand = typename Tile<D>::Operand;
  const LinearAttention& a = b.forward;
  const std::int64_t width = a.shape.heads * D;
  const int mine = 16 * warp_index();
  const int row = first + mine;
  const int valid = max(0, min(16, place.tokens - row));
  const TokenRows<const bfloat16> out{a.out, width};
  const TokenRows<const bfloat16> grad_out{b.grad_out, width};
  Operand query;
  Operand gradient;
  Operand output;
  load_left<D>(query, place.rows(a.q, row), a.q.stride, valid);
  load_left<D>(gradient, place.rows(grad_out, row), width, valid);
  load_left<D>(output, place.rows(out, row), width, valid);
  const float guard = static_cast<float>(place.tokens) * a.eps;
  const float2 normaliser = multiply_vector<D>(query, memory.key_sums);
  const float2 inverse = make_float2(1.0F / (normaliser.x + guard), 1.0F / (normaliser.y + guard));
  const float2 along = row_products<D>(gradient, output);
  const float2 weight = make_float2(-along.x * inverse.x, -along.y * inverse.y);
#pragma unroll
  for (int step = 0; step < Tile<D>::kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      gradient[step][i] = scaled(gradient[step][i], i % 2 == 0 ? inverse.x : inverse.y);
    }
  }
  store_operand<D>(memory.tile(0), query);
  store_operand<D>(memory.tile(1), gradient);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane % 4 == 0) {
    memory.weights[mine + lane / 4] = weight.x;
    memory.weights[mine + lane / 4 + 8] = weight.y;
  }
  typename Tile<D>::Sums sums;
  multiply_transposed<D>(sums, gradient, memory.tile(2));
  add_outer<D>(sums, weight, memory.key_sums);
  store_rows<D>(place.rows(b.grad_q, row), b.grad_q.stride, valid, sums, 1.0F, 1.0F);
}

/// A pair of weights in two parts, of which the second holds what rounding took from the first.
struct SplitWeights {
  const float* weights;
  bool rest;

  __device__ __forceinline__ std::uint32_t operator()(int group, int half) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const float2 pair =
        *reinterpret_cast<const float2*>(weights + 16 * group + 8 * half + lane % 4 * 2);
    const std::uint32_t rounded = pack_bfloat16(pair.x, pair.y);
    if (!rest) return rounded;
    return pack_bfloat16(pair.x - __uint_as_float(rounded << 16),
                         pair.y - __uint_as_float(rounded & 0xffff0000U));
  }
};

template <int D>
__device__ __forceinline__ void key_rows(const LinearAttentionBackward& b, const LinearPlace& place,
                                         BackwardMemory<D>& memory, int row) {
  using Operand = typename Tile<D>::Operand;
  const LinearAttention& a = b.forward;
  const int valid = min(16, place.tokens - row);
  Operand key;
  Operand value;
  load_left<D>(key, place.rows(a.k, row), a.k.stride, valid);
  load_left<D>(value, place.rows(a.v, row), a.v.stride, valid);
  typename Tile<D>::Sums sums = {};
#pragma unroll
  for (int step = 0; step < Tile<D>::kSteps; ++step) {
    multiply_columns<D>(sums, key[step],
                        memory.tile(2) + Tile<D>::column_lane() + step * Tile<D>::kBytes);
  }
  store_rows<D>(place.rows(b.grad_v, row), b.grad_v.stride, valid, sums, 1.0F, 1.0F);
  multiply_transposed<D>(sums, value, memory.tile(2));
  add_outer<D>(sums, make_float2(1.0F, 1.0F), memory.query_sums);
  store_rows<D>(place.rows(b.grad_k, row), b.grad_k.stride, valid, sums, 1.0F, 1.0F);
}

template <int D>
__global__ void __launch_bounds__(LinearBlock<D>::kThreads)
    linear_attention_backward_kernel(const __grid_constant__ LinearAttentionBackward b) {
  __shared__ BackwardMemory<D> memory;
  const LinearPlace place = LinearPlace::of<D>(b.forward.shape);
  sum_keys<D>(b.forward, place, memory.tile(0), memory.tile(1), memory.tile(2), memory.key_sums);
  typename Tile<D>::Sums sums = {};
  float column_sums[4] = {};
  for (int first = 0; first < place.tokens; first += LinearBlock<D>::kRows) {
    query_rows<D>(b, place, memory, first);
    __syncthreads();
    multiply_blocks<D>(sums, memory.tile(0), memory.tile(1));
    add_weighted_rows<D>(column_sums, memory.tile(0), SplitWeights{memory.weights, false});
    add_weighted_rows<D>(column_sums, memory.tile(0), SplitWeights{memory.weights, true});
    __syncthreads();  // before the next queries come
  }
  store_product<D>(memory.tile(2), sums, memory.query_sums, column_sums);
  __syncthreads();
  for (int row = 16 * warp_index(); row < place.tokens; row += LinearBlock<D>::kRows) {
    key_rows<D>(b, place, memory, row);
  }
}

bool is_regular_gradient(const TokenRows<bfloat16>& rows) {
  return rows.stride % 8 == 0 && is_aligned(rows.data, 16);
}

}  // namespace

void linear_attention_backward(const LinearAttentionBackward& b, Stream stream) {
  check_linear_attention(b.forward);
  ABLATE_CHECK(is_aligned(b.grad_out, 16) && is_regular_gradient(b.grad_q) &&
                   is_regular_gradient(b.grad_k) && is_regular_gradient(b.grad_v),
               "linear_attention_backward: rows must be aligned to 16 bytes, strides multiples of "
               "8");
  const AttentionShape& shape = b.forward.shape;
  const auto blocks = static_cast<unsigned>(shape.batch * shape.heads);
  if (blocks == 0) return;
  if (shape.head_dim == 64) {
    linear_attention_backward_kernel<64><<<blocks, LinearBlock<64>::kThreads, 0, stream>>>(b);
  } else {
    linear_attention_backward_kernel<32><<<blocks, LinearBlock<32>::kThreads, 0, stream>>>(b);
  }
  check_launch();
}

}  // namespace ablate::kernels
