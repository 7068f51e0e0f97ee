#pragma once

#include "methods/kernels/attention_device.cuh"

namespace ablate::kernels {

// The two halves of the backward pass, 16 rows a warp. With weights P = softmax(S), S = q k^T /
// sqrt(d) + bias and D = rowsum(grad_out * out):
//
//   grad_v = P^T grad_out      grad_S = P * (grad_out v^T - D)
//   grad_q = grad_S k / sqrt(d)      grad_k = grad_S^T q / sqrt(d)
//
// (Dao et al., "FlashAttention", NeurIPS 2022, appendix B). A warp that owns 16 keys visits all
// queries and ends with grad_k and grad_v, one that owns 16 queries visits all keys and ends with
// grad_q: nothing is added up between warps. Both compute P and grad_S; where shared memory holds
// grad_S, the second reads it instead.

/// 16 keys and values; lane l looks after rows l / 4 and that + 8.
template <int D>
struct KeyGradientRows {
  typename Tile<D>::Operand keys;
  typename Tile<D>::Operand values;
  typename Tile<D>::Sums grad_keys = {};  ///< without the factor 1 / sqrt(d)
  typename Tile<D>::Sums grad_values = {};
  float bias[2] = {};  ///< in units of log 2
};

/// 16 queries as a KeyGradientRows visits them.
struct VisitedQueries {
  std::uint32_t as_rows;        ///< q, with row_lane()
  std::uint32_t as_columns;     ///< q, with column_lane()
  std::uint32_t grads;          ///< distance from q to grad_out
  const float* minus_log_sums;  ///< in units of log 2; -infinity for queries that do not exist
  int deltas;                   ///< distance to D above

  template <int D>
  __device__ __forceinline__ void next() {
    as_rows += Tile<D>::kBytes;
    as_columns += Tile<D>::kBytes;
    minus_log_sums += 16;
  }
};

/// Returns grad_S^T (16 keys x 16 queries) as left factor too.
template <int D, bool kBias>
__device__ __forceinline__ void visit(KeyGradientRows<D>& rows, const VisitedQueries& visited,
                                      float factor, std::uint32_t (&grad_scores)[4]) {
  float weights[2][4] = {};
  float grads[2][4] = {};
  multiply_rows<D>(weights, rows.keys, visited.as_rows);
  multiply_rows<D>(grads, rows.values, visited.as_rows, visited.grads);
#pragma unroll
  for (int group = 0; group < 2; ++group) {
    const int column = 8 * group + static_cast<int>(threadIdx.x) % 4 * 2;
    const float* of_column = visited.minus_log_sums + column;
    const float2 shift = *reinterpret_cast<const float2*>(of_column);
    const float2 delta = *reinterpret_cast<const float2*>(of_column + visited.deltas);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float exponent = i % 2 == 0 ? shift.x : shift.y;
      if (kBias) exponent += rows.bias[i / 2];
      weights[group][i] = power_of_two(fmaf(weights[group][i], factor, exponent));
      grads[group][i] = weights[group][i] * (grads[group][i] - (i % 2 == 0 ? delta.x : delta.y));
    }
  }
  std::uint32_t left[4];
  to_operand(left, weights);
  multiply_columns<D>(rows.grad_values, left, visited.as_columns, visited.grads);
  to_operand(grad_scores, grads);
  multiply_columns<D>(rows.grad_keys, grad_scores, visited.as_columns);
}

/// 16 queries; lane l looks after rows l / 4 and that + 8.
template <int D>
struct QueryGradientRows {
  typename Tile<D>::Operand queries;
  typename Tile<D>::Operand grads;           ///< of grad_out
  typename Tile<D>::Sums grad_queries = {};  ///< without the factor 1 / sqrt(d)
  float minus_log_sums[2];                   ///< in units of log 2
  float deltas[2];                           ///< D above
};

/// 16 keys as a QueryGradientRows visits them.
struct VisitedKeys {
  std::uint32_t as_rows;     ///< k, with row_lane()
  std::uint32_t as_columns;  ///< k, with column_lane()
  std::uint32_t values;      ///< distance from k to v
  const float* bias;         ///< in units of log 2; -infinity for keys that do not exist

  template <int D>
  __device__ __forceinline__ void next() {
    as_rows += Tile<D>::kBytes;
    as_columns += Tile<D>::kBytes;
    bias += 16;
  }
};

/// `valid` keys exist; all 16 unless kLast (or with a bias, which says so itself).
template <int D, bool kBias, bool kLast>
__device__ __forceinline__ void visit(QueryGradientRows<D>& rows, const VisitedKeys& visited,
                                      float factor, int valid) {
  float weights[2][4] = {};
  float grads[2][4] = {};
  multiply_rows<D>(weights, rows.queries, visited.as_rows);
  multiply_rows<D>(grads, rows.grads, visited.as_rows, visited.values);
#pragma unroll
  for (int group = 0; group < 2; ++group) {
    const int column = 8 * group + static_cast<int>(threadIdx.x) % 4 * 2;
    float2 bias{};
    if (kBias) bias = *reinterpret_cast<const float2*>(visited.bias + column);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float exponent = rows.minus_log_sums[i / 2];
      if (kBias) exponent += i % 2 == 0 ? bias.x : bias.y;
      if (kLast && !kBias && column + i % 2 >= valid) exponent = -INFINITY;
      const float weight = power_of_two(fmaf(weights[group][i], factor, exponent));
      grads[group][i] = weight * (grads[group][i] - rows.deltas[i / 2]);
    }
  }
  std::uint32_t grad_scores[4];
  to_operand(grad_scores, grads);
  multiply_columns<D>(rows.grad_queries, grad_scores, visited.as_columns);
}

/// All keys of a block, `tiles` times 16, of which `valid` exist.
template <int D, bool kBias>
__device__ __forceinline__ void visit_all(QueryGradientRows<D>& rows, VisitedKeys visited,
                                          int tiles, float factor, int valid) {
  for (int tile = 1; tile < tiles; ++tile) {
    visit<D, kBias, false>(rows, visited, factor, 16);
    visited.next<D>();
  }
  visit<D, kBias, true>(rows, visited, factor, valid - (tiles - 1) * 16);
}

/// For sequences too long for shared memory; see AttentionBackward. `deltas` (B, H, N) and
/// `partials` (streamed_bias_slices(), 3, H, d), or null, are work space.
std::int64_t streamed_bias_slices(const AttentionShape& shape);
void attention_backward_streamed(const AttentionBackward& arguments, float* deltas, float* partials,
                                 Stream stream);

}  // namespace ablate::kernels
