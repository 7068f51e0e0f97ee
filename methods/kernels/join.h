#pragma once

#include <cstddef>
#include <cstdint>

#include "methods/kernels/add_norm.h"
#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

/// A residual join without a norm behind it, where something else (a token reducer) reads x:
///   x = skip base + scale[sample] branch        rounded to R, the type of the residual stream
///
/// All tensors are (batch, tokens, width), dense. Any width; multiples of 8 run at full speed and
/// need pointers aligned to 16 bytes. Moves, for R = float / bfloat16 and each element, 10 / 6
/// bytes.
template <typename R>
struct JoinForward {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;
  std::int64_t width = 0;
  const R* base = nullptr;
  const bfloat16* branch = nullptr;  ///< null: none
  const float* scale = nullptr;      ///< (batch); null: 1
  SkipGain skip{};
  R* x = nullptr;  ///< may be base
};

template <typename R>
void join_forward(const JoinForward<R>& arguments, Stream stream);

/// d_base = skip dx;  d_branch = scale[sample] dx;  d_bias += column sums of d_branch before its
/// rounding, as in AddNormBackward. Moves, for R = float / bfloat16 and each element, 10 / 6 bytes
/// (6 / 4 without d_base).
template <typename R>
struct JoinBackward {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;
  std::int64_t width = 0;
  const R* dx = nullptr;
  const float* scale = nullptr;  ///< (batch); null: 1
  SkipGain skip{};
  R* d_base = nullptr;           ///< may be dx; null: not wanted (it is dx where skip is 1)
  bfloat16* d_branch = nullptr;  ///< null: no branch
  float* d_bias = nullptr;       ///< (width), added to; null: not wanted
};

/// For the current device; not needed without d_bias.
std::size_t join_backward_workspace_bytes(std::int64_t batch, std::int64_t tokens,
                                          std::int64_t width);
/// `workspace` is aligned to 16 bytes.
template <typename R>
void join_backward(const JoinBackward<R>& arguments, void* workspace, Stream stream);

namespace reference {
template <typename R>
void join_forward(const JoinForward<R>& arguments);
template <typename R>
void join_backward(const JoinBackward<R>& arguments);
}  // namespace reference

}  // namespace ablate::kernels
