#include "methods/kernels/cuda_check.h"
#include "methods/kernels/linear_attention.cuh"
#include "runner/core/error.h"

namespace ablate::kernels {
namespace {

template <int D>
__global__ void __launch_bounds__(LinearBlock<D>::kThreads)
    linear_attention_kernel(const __grid_constant__ LinearAttention a) {
  __shared__ __align__(128) unsigned char memory[3 * LinearBlock<D>::kBytes];
  __shared__ __align__(16) float key_sums[D];
  const LinearPlace place = LinearPlace::of<D>(a.shape);
  const std::uint32_t keys = shared_address(memory);
  const std::uint32_t values = keys + LinearBlock<D>::kBytes;
  const std::uint32_t product = values + LinearBlock<D>::kBytes;
  sum_keys<D>(a, place, keys, values, product, key_sums);
  const float guard = static_cast<float>(place.tokens) * a.eps;
  const std::int64_t width = a.shape.heads * D;
  for (int first = 16 * warp_index(); first < place.tokens; first += LinearBlock<D>::kRows) {
    const int valid = min(16, place.tokens - first);
    PendingOperand<D> pending;
    pending.start(place.rows(a.q, first), a.q.stride, valid);
    typename Tile<D>::Operand query;
    pending.finish(query);
    const float2 normaliser = multiply_vector<D>(query, key_sums);
    typename Tile<D>::Sums sums = {};
#pragma unroll
    for (int step = 0; step < Tile<D>::kSteps; ++step) {
      multiply_columns<D>(sums, query[step],
                          product + Tile<D>::column_lane() + step * Tile<D>::kBytes);
    }
    const TokenRows<bfloat16> out{a.out, width};
    store_rows<D>(place.rows(out, first), width, valid, sums, 1.0F / (normaliser.x + guard),
                  1.0F / (normaliser.y + guard));
  }
}

bool is_regular(const TokenRows<const bfloat16>& rows) {
  return rows.stride % 8 == 0 && is_aligned(rows.data, 16);
}

}  // namespace

void check_linear_attention(const LinearAttention& a) {
  const AttentionShape& shape = a.shape;
  ABLATE_CHECK(shape.head_dim == 32 || shape.head_dim == 64, "linear attention with heads of ",
               shape.head_dim, " channels: 32 and 64 are supported");
  ABLATE_CHECK(shape.tokens >= 1 && shape.heads >= 1 &&
                   shape.tokens * shape.batch < (std::int64_t{1} << 31) &&
                   shape.batch * shape.heads < (std::int64_t{1} << 31),
               "linear attention of ", shape.batch, " images, ", shape.tokens, " tokens, ",
               shape.heads, " heads");
  ABLATE_CHECK(a.eps > 0.0F, "linear attention needs a positive eps");
  ABLATE_CHECK(is_regular(a.q) && is_regular(a.k) && is_regular(a.v) && is_aligned(a.out, 16),
               "linear attention: rows must be aligned to 16 bytes, strides multiples of 8");
}

void linear_attention(const LinearAttention& a, Stream stream) {
  check_linear_attention(a);
  const auto blocks = static_cast<unsigned>(a.shape.batch * a.shape.heads);
  if (blocks == 0) return;
  if (a.shape.head_dim == 64) {
    linear_attention_kernel<64><<<blocks, LinearBlock<64>::kThreads, 0, stream>>>(a);
  } else {
    linear_attention_kernel<32><<<blocks, LinearBlock<32>::kThreads, 0, stream>>>(a);
  }
  check_launch();
}

}  // namespace ablate::kernels
