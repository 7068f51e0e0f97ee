#pragma once

#include <cstddef>
#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

// Residual joins and LayerNorm (Ba et al., "Layer Normalization", 2016) of token streams.

/// Sizes of a join and the normalisation behind it. All tensors are (batch, tokens, width), dense,
/// but need not hold all tokens of a sample: each holds the first so many of every sample. The
/// final norm of a class token has normalised = 1 and base = tokens of the stream.
struct AddNormShape {
  std::int64_t batch = 0;
  std::int64_t width = 0;
  std::int64_t normalised = 0;  ///< tokens of y, dy and statistics
  std::int64_t base = 0;        ///< tokens of base and d_base
  std::int64_t branch = 0;      ///< tokens of branch and d_branch
  std::int64_t x = 0;           ///< tokens of x
  std::int64_t dx = 0;          ///< tokens of the incoming gradient

  /// Every tensor holds all tokens, and all are normalised.
  static AddNormShape dense(std::int64_t batch, std::int64_t tokens, std::int64_t width) {
    return {batch, width, tokens, tokens, tokens, tokens, tokens};
  }
};

/// Gain of the identity path: `value` times what `factor` points to on the device, if anything. A
/// gain that changes between replays of a captured graph is a factor.
struct SkipGain {
  float value = 1.0F;
  const float* factor = nullptr;
};

/// Groups of tokens that are averaged on their way through a join (token merging; see TokenGroups):
///   x[p] = sum of shares[j] (skip base[j] + scale[sample] branch[j]) over the members j of group p
/// The shares of a group add up to 1, and every token of base and branch is in one group.
struct JoinGroups {
  const std::int32_t* offsets = nullptr;  ///< (batch, normalised + 1); null: no groups
  const std::int32_t* members = nullptr;  ///< (batch, base), ascending in each group
  const float* shares = nullptr;          ///< (batch, base)
};

/// For the first `normalised` tokens of every sample:
///   x = skip base + scale[sample] branch        rounded to R, the type of the residual stream
///   y = (x - mean) rstd gamma + beta            rstd = 1 / sqrt(variance + eps)
/// R is float or bfloat16. Mean and variance (two passes, over registers) are those of the rounded
/// x, in float.
///
/// Widths up to 4096; multiples of 8 run at full speed and need every pointer to be aligned to 16
/// bytes. Moves, for R = float / bfloat16 and each element, 12 / 8 bytes with a branch, 6 / 4
/// without branch and x. Every row is the work of one team of threads: bits do not depend on the
/// number of rows or the device.
///
/// With groups, `normalised` and x count the tokens after merging, and x is another tensor than
/// base.
template <typename R>
struct AddNormForward {
  AddNormShape shape{};
  const R* base = nullptr;
  const bfloat16* branch = nullptr;  ///< null: none
  const float* scale = nullptr;      ///< (batch); null: 1
  SkipGain skip{};
  JoinGroups groups{};
  const float* gamma = nullptr;  ///< (width)
  const float* beta = nullptr;   ///< (width)
  float eps = 1e-6F;
  R* x =
      nullptr;  ///< may be base; null: not wanted (then it must equal base, or backward lacks it)
  bfloat16* y = nullptr;
  float* statistics = nullptr;  ///< (batch * normalised, 2): mean, rstd; null: not wanted
};

template <typename R>
void add_norm_forward(const AddNormForward<R>& arguments, Stream stream);

/// Gradients of AddNormForward. With g = dx + (gradient of the norm at x, for normalised tokens),
/// where dx is zero for tokens that it does not hold:
///   d_base = skip g, for all tokens of base;  d_branch = scale[sample] g, for those of branch
///   d_gamma += column sums of dy xhat;  d_beta += of dy;  d_bias += of d_branch before its
///   rounding
///
/// Widths, alignment as in forward. Moves, for R = float / bfloat16 and each element, 16 / 10 bytes
/// with a branch and an incoming gradient. The sums are made in two stages, in an order that
/// depends on the sizes and the number of multiprocessors alone: bits repeat on equal devices.
///
/// With groups, each of their members gets its share of g, and d_base is another tensor than dx.
template <typename R>
struct AddNormBackward {
  AddNormShape shape{};
  const bfloat16* dy = nullptr;
  const R* x = nullptr;               ///< what was normalised: x, or base where x was left out
  const float* statistics = nullptr;  ///< of forward
  const float* gamma = nullptr;       ///< (width)
  const R* dx = nullptr;              ///< gradient of x from elsewhere; null: none
  const float* scale = nullptr;       ///< (batch); null: 1
  SkipGain skip{};
  JoinGroups groups{};
  R* d_base = nullptr;           ///< may be dx when both hold the same tokens
  bfloat16* d_branch = nullptr;  ///< null: no branch
  float* d_gamma = nullptr;      ///< (width), added to; null: not wanted, as the next two
  float* d_beta = nullptr;       ///< (width), added to
  float* d_bias = nullptr;       ///< (width), added to: bias of the Linear that made the branch
};

/// For the current device.
std::size_t add_norm_backward_workspace_bytes(std::int64_t width);
/// `workspace` is aligned to 16 bytes.
template <typename R>
void add_norm_backward(const AddNormBackward<R>& arguments, void* workspace, Stream stream);

namespace reference {
template <typename R>
void add_norm_forward(const AddNormForward<R>& arguments);
template <typename R>
void add_norm_backward(const AddNormBackward<R>& arguments);
}  // namespace reference

}  // namespace ablate::kernels
