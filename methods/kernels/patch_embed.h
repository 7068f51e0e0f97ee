#pragma once

#include <cstddef>
#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

// The patch embedding of a vision transformer as a matrix product: patchify(), a GEMM with the
// weights of Conv2d(channels, width, patch, stride = patch) as (width, channels * patch * patch),
// assemble_tokens().

/// patches[b, (gy, gx), (c, py, px)] = images[b, c, gy patch + py, gx patch + px], rounded to
/// bfloat16: columns in the order of Conv2d's weights. T is float or bfloat16.
///
/// Any size; 16-byte accesses when patch and image width are multiples of 8, 8-byte (bfloat16)
/// when multiples of 4; pointers aligned to 16 bytes in both cases. Moves 2 + sizeof(T) bytes an
/// element.
template <typename T>
struct Patchify {
  std::int64_t batch = 0;
  std::int64_t channels = 3;
  std::int64_t height = 0;  ///< a multiple of patch, as width
  std::int64_t width = 0;
  std::int64_t patch = 0;
  const T* images = nullptr;    ///< (batch, channels, height, width)
  bfloat16* patches = nullptr;  ///< (batch * grid, channels * patch * patch)
};

template <typename T>
void patchify(const Patchify<T>& arguments, Stream stream);

/// Sizes of a token stream: `prefix` class and distillation tokens, then the patches.
struct TokenShape {
  std::int64_t batch = 0;
  std::int64_t prefix = 0;   ///< 0, 1 or 2
  std::int64_t patches = 0;  ///< of a sample
  std::int64_t width = 0;

  std::int64_t tokens() const { return prefix + patches; }
};

/// tokens[b, t] = (t < prefix ? prefix_tokens[t] : patches[b, t - prefix]) + pos_embed[t], rounded
/// to R, the type of the residual stream (float or bfloat16).
///
/// Any width; multiples of 8 run at full speed and need pointers aligned to 16 bytes. Moves
/// 2 + sizeof(R) bytes an element, pos_embed comes from the cache.
template <typename R>
struct AssembleTokens {
  TokenShape shape{};
  const bfloat16* patches = nullptr;                   ///< (batch, patches, width)
  const float* prefix_tokens[2] = {nullptr, nullptr};  ///< (width) each
  const float* pos_embed = nullptr;                    ///< (tokens, width); null: none
  R* tokens = nullptr;                                 ///< (batch, tokens, width)
};

template <typename R>
void assemble_tokens(const AssembleTokens<R>& arguments, Stream stream);

/// d_patches[b, t - prefix] = d_tokens[b, t]; d_pos_embed[t] += sum over b of d_tokens[b, t];
/// d_prefix_tokens[t] += the same for t < prefix; d_bias += sum over b and patches: the bias
/// gradient of the GEMM. Sums are of d_tokens, not of its rounding.
///
/// Width and alignment as above. Moves 2 + sizeof(R) bytes an element. Stages of fixed order, which
/// depends on the sizes and the number of multiprocessors alone.
template <typename R>
struct AssembleTokensBackward {
  TokenShape shape{};
  const R* d_tokens = nullptr;                     ///< (batch, tokens, width)
  bfloat16* d_patches = nullptr;                   ///< (batch, patches, width)
  float* d_prefix_tokens[2] = {nullptr, nullptr};  ///< (width) each, added to; null: not wanted
  float* d_pos_embed = nullptr;                    ///< (tokens, width), added to; null: not wanted
  float* d_bias = nullptr;                         ///< (width), added to; null: not wanted
};

/// For the current device.
std::size_t assemble_tokens_backward_workspace_bytes(const TokenShape& shape);
/// `workspace` is aligned to 16 bytes.
template <typename R>
void assemble_tokens_backward(const AssembleTokensBackward<R>& arguments, void* workspace,
                              Stream stream);

namespace reference {
template <typename T>
void patchify(const Patchify<T>& arguments);
template <typename R>
void assemble_tokens(const AssembleTokens<R>& arguments);
template <typename R>
void assemble_tokens_backward(const AssembleTokensBackward<R>& arguments);
}  // namespace reference

}  // namespace ablate::kernels
