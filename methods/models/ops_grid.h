#pragma once

#include <cstdint>

#include "methods/models/ops.h"

// Operations of models whose tokens (B, H W, C) are the places of a map, row by row. One
// form of each, in ATen; with a FusedContext its activations are bfloat16, its residual stream
// float, and the parameters used here are cast in passing.

namespace ablate::ops {

/// In the type of the residual stream.
at::Tensor as_stream(const at::Tensor& x, const ForwardState& state);
/// In the type of activations, which Linears read.
at::Tensor as_activation(const at::Tensor& x, const ForwardState& state);
/// A parameter in the type of what it meets.
inline at::Tensor like(const at::Tensor& parameter, const at::Tensor& x) {
  return parameter.defined() ? parameter.to(x.scalar_type()) : parameter;
}

/// (B, H W, C) -> (B, C, H, W) and back; the first is a view, in channels-last order. Without a
/// height the map is square.
at::Tensor map_of(const at::Tensor& tokens, std::int64_t height = 0);
at::Tensor tokens_of(const at::Tensor& map);

/// A convolution whose stride is its kernel, of a map (B, C, H, W), to tokens: one matrix product
/// over unfolded patches.
at::Tensor patch_conv(const at::Tensor& map, const Conv2d& conv);
/// Any other convolution of a map, to tokens.
at::Tensor map_conv(const at::Tensor& map, const Conv2d& conv);
/// A convolution of each channel by itself with stride 1, which keeps the size. A kernel of d
/// channels serves every d channels of the tokens. Maps as in map_of().
at::Tensor depthwise_conv(const at::Tensor& tokens, const Conv2d& conv, std::int64_t height = 0);

/// Four neighbours side by side, (B, H W, C) -> (B, H W / 4, 4 C), in the order of (row, column)
/// parity (0, 0), (1, 0), (0, 1), (1, 1). Maps as in map_of().
at::Tensor merge_neighbours(const at::Tensor& tokens, std::int64_t height = 0);

/// Softmax attention in windows, packed rows (windows, N, ..) as for attention(): with logits
/// q.k / sqrt(d) + bias. bias (1 or windows of an image, H, N, N), with a gradient.
at::Tensor window_attention(const at::Tensor& qkv, const AttentionHeads& heads,
                            const at::Tensor& bias);

/// The focusing map of queries and keys, which keeps the norm of a row and draws its direction to
/// the nearest axis (Han et al., "FLatten Transformer", ICCV 2023):
///
///   u = gate (relu(x) + 1e-6) / scale,  y = |u| / |u^p| u^p   (u^p element by element)
///
/// over the last dimension, hence over all heads, as the authors' code does it. scale is positive;
/// gate may be undefined: 1.
at::Tensor focus(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& gate,
                 std::int64_t p);
/// Attention without softmax in a time linear in the tokens, for q and k that are not negative:
///
///   o_i = sum_j (q_i . k_j) v_j / (sum_j q_i . k_j + N 1e-6)
///
/// for each of `heads` heads; q, k (B, N, ..), v (B, N, C): (B, N, C).
at::Tensor linear_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            std::int64_t heads);

/// Focused linear attention with exponent 3 and the depthwise convolution of its values.
struct FocusedAttention {
  std::int64_t heads = 1;
  std::int64_t prefix_tokens = 0;  ///< without part in the convolution
  at::Tensor position;             ///< (1, N, C), added to keys; undefined: none
  at::Tensor unit;                 ///< (1, 1, C): scale of focus()
  /// Of the convolution, as in depthwise_conv(), (d, 1, k, k) and (d), in float; undefined: none.
  at::Tensor kernel, bias;
};
/// Whether there is a fused form for heads of that width and convolutions of that side (0: none).
/// It exists with exponent 3 alone.
bool focused_attention_fusable(std::int64_t head_dim, std::int64_t kernel_side,
                               const ForwardState& state);
/// Of packed rows (B, N, 3 C), in its fused form: (B, N, C).
at::Tensor focused_attention(const at::Tensor& qkv, const FocusedAttention& attention,
                             const ForwardState& state);

}  // namespace ablate::ops
