#pragma once

#include "runner/torch/torch.h"

namespace ablate {

/// Rows of a (B, length, C) tensor, flattened to (B * length, C), that `positions` (B, M) mean.
at::Tensor flat_rows(const at::Tensor& positions, std::int64_t length);

/// Tokens (B, M, C) of x (B, N, C) by their numbers (B, M); a token may be taken several times.
at::Tensor take_tokens(const at::Tensor& x, const at::Tensor& numbers);

}  // namespace ablate
