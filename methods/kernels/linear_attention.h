#pragma once

#include <cstddef>
#include <cstdint>

#include "methods/kernels/attention.h"
#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

// Focused linear attention (Han et al., "FLatten Transformer: Vision Transformer using Focused
// Linear Attention", ICCV 2023), in two parts: the focusing map of queries and keys, and attention
// without softmax in a time linear in the tokens.

/// The focusing map with exponent 3, which keeps the norm of a row and draws its direction to the
/// nearest axis:
///
///   u = (relu(x) + eps) / scale,  y = |u| / |u^3| u^3   (u^3 element by element)
///
/// Norms are taken over a whole row, that is over all heads, as the authors' code does it. x and y
/// are rows of `width` elements in matrices of wider rows (the packed output of a qkv Linear).
/// Widths up to 4096; multiples of 8 run at full speed and need pointers aligned to 16 bytes and
/// strides that are multiples of 8. Moves 4 bytes an element.
struct Focus {
  std::int64_t rows = 0;
  std::int64_t width = 0;
  const bfloat16* x = nullptr;
  std::int64_t x_stride = 0;     ///< elements between rows
  const float* scale = nullptr;  ///< (width), positive
  float eps = 1e-6F;
  bfloat16* y = nullptr;
  std::int64_t y_stride = 0;
};
void focus(const Focus& arguments, Stream stream);

/// d_scale[c] += its gradient, summed over rows in two stages in an order that depends on the sizes
/// and the number of multiprocessors alone. Moves 6 bytes an element.
struct FocusBackward {
  Focus forward{};  ///< y is not read
  const bfloat16* dy = nullptr;
  std::int64_t dy_stride = 0;
  bfloat16* dx = nullptr;  ///< may be dy or x, with its stride
  std::int64_t dx_stride = 0;
  float* d_scale = nullptr;  ///< (width), added to
};
/// For the current device.
std::size_t focus_backward_workspace_bytes(std::int64_t width);
void focus_backward(const FocusBackward& arguments, void* workspace, Stream stream);

/// Rows of tokens (B, N, H, d), dense within a token.
template <typename T>
struct TokenRows {
  T* data = nullptr;
  std::int64_t stride = 0;  ///< elements between tokens; images follow after N of them
};

/// For each head, where q and k are not negative:
///
///   out_i = sum_j (q_i . k_j) v_j / (sum_j q_i . k_j + N eps)
///
/// computed as q (k^T v): k^T v is summed in float and rounded to bfloat16 as a factor. d is 32 or
/// 64; pointers are aligned to 16 bytes, strides multiples of 8. Same bits in every run. One block
/// a head; reads q, k, v and writes out once: 8 bytes an element.
struct LinearAttention {
  AttentionShape shape{};
  TokenRows<const bfloat16> q{}, k{}, v{};
  float eps = 1e-6F;
  bfloat16* out = nullptr;  ///< (B, N, H, d), dense
};
void linear_attention(const LinearAttention& arguments, Stream stream);

/// Gradient of LinearAttention; k^T v and the normalisers are computed again. Reads k and v twice.
struct LinearAttentionBackward {
  LinearAttention forward{};           ///< with its out
  const bfloat16* grad_out = nullptr;  ///< (B, N, H, d), dense
  TokenRows<bfloat16> grad_q{}, grad_k{}, grad_v{};
};
void linear_attention_backward(const LinearAttentionBackward& arguments, Stream stream);

namespace reference {
void focus(const Focus& arguments);
void focus_backward(const FocusBackward& arguments);
void linear_attention(const LinearAttention& arguments);
void linear_attention_backward(const LinearAttentionBackward& arguments);
}  // namespace reference

}  // namespace ablate::kernels
