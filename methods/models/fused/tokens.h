#pragma once

#include "methods/models/slots.h"

namespace ablate::fused {

// Token merging on a CUDA device (Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023):
// who joins whom, and what follows for sizes. Merging itself is a part of ops::join_and_norm. None
// of it has a gradient.

/// Whether match_keys() takes these keys: (B, H, N, d), a bfloat16 view of packed q, k, v as
/// ForwardState::keys.
bool match_supported(const at::Tensor& keys);
/// Bipartite soft matching by the mean of the keys over the heads, as ablate::match_tokens()
/// defines it; similarities in float from the bfloat16 keys. `sizes` (B, N, 1) float, undefined:
/// all 1.
TokenGroups match_keys(const at::Tensor& keys, std::int64_t merged, std::int64_t protected_tokens,
                       const at::Tensor& sizes);

/// The same for positions (B, N) that are known; `count` groups, none of them empty. N <= 4096.
TokenGroups group_tokens(const at::Tensor& positions, std::int64_t count, const at::Tensor& sizes);

/// Means of x (B, N, C) float by groups, weighted by `sizes` as above: (B, N', C).
at::Tensor merge_means(const TokenGroups& groups, const at::Tensor& x, const at::Tensor& sizes);

}  // namespace ablate::fused
