#pragma once

#include <cstddef>
#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

/// B images of N tokens, H heads of d channels.
struct AttentionShape {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;
  std::int64_t heads = 0;
  int head_dim = 64;
};

/// Whether attention() and attention_backward() take sequences of N tokens and heads of d channels:
/// d 32 or 64, 1 <= N <= 65535.
bool attention_supported(std::int64_t tokens, int head_dim);

/// Multi-head attention on the packed output of the qkv Linear:
///
///   out = softmax(q k^T / sqrt(d) + key_bias) v
///
/// for each head; key_bias, the same for all heads and queries of an image, is the logarithm of the
/// token sizes in proportional attention (Bolya et al., "Token Merging: Your ViT But Faster", ICLR
/// 2023) and gets no gradient. Sums in float, probabilities in bfloat16 as factors of v.
///
/// qkv and out are aligned to 16 bytes. Same bits in every run; the bits of one head depend on
/// nothing but its own inputs and N. Reads qkv and writes out once while the keys of two heads fit
/// into the shared memory of a multiprocessor (N <= 432 on sm_90 at d = 64); longer sequences read
/// keys and values again for every 128 queries.
struct Attention {
  AttentionShape shape;
  const bfloat16* qkv = nullptr;    ///< (B, N, 3, H, d), dense
  const float* key_bias = nullptr;  ///< (B, N), finite, or null
  bfloat16* out = nullptr;          ///< (B, N, H, d), dense
  float* log_sum_exp = nullptr;     ///< (B, H, N), of the natural logarithm, or null
};

void attention(const Attention& arguments, Stream stream);

/// Gradient of Attention. The probabilities are computed again from log_sum_exp; the gradients of
/// the scores are rounded to bfloat16 as factors of q and k.
///
/// All bfloat16 pointers are aligned to 16 bytes. Same bits in every run. Reads qkv, out and
/// grad_out and writes grad_qkv once while a head fits into shared memory (N <= 432 on sm_90 at
/// d = 64).
struct AttentionBackward {
  AttentionShape shape;
  const bfloat16* qkv = nullptr;       ///< (B, N, 3, H, d)
  const float* key_bias = nullptr;     ///< as in the forward pass
  const bfloat16* out = nullptr;       ///< (B, N, H, d), of the forward pass
  const float* log_sum_exp = nullptr;  ///< (B, H, N), of the forward pass
  const bfloat16* grad_out = nullptr;  ///< (B, N, H, d)
  bfloat16* grad_qkv = nullptr;        ///< (B, N, 3, H, d)
  float* qkv_bias_gradient = nullptr;  ///< (3, H, d), added to: column sums of grad_qkv before it
                                       ///< is rounded; or null
};

/// For the current device; `bias` where qkv_bias_gradient is asked for.
std::size_t attention_backward_workspace_bytes(const AttentionShape& shape, bool bias);
/// `workspace` is aligned to 16 bytes.
void attention_backward(const AttentionBackward& arguments, void* workspace, Stream stream);

namespace reference {
void attention(const Attention& arguments);
void attention_backward(const AttentionBackward& arguments);
}  // namespace reference

}  // namespace ablate::kernels
