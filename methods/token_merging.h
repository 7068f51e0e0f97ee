#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "methods/models/slots.h"
#include "runner/torch/torch.h"

namespace ablate {

/// Which tokens of a batch join which: the result of bipartite soft matching (Bolya et al., "Token
/// Merging: Your ViT But Faster", ICLR 2023). Constants of the forward pass: no gradient.
struct MergePlan {
  /// (B, N) int64: where the group of each token stands afterwards; undefined when nothing merges.
  at::Tensor positions;
  std::int64_t tokens = 0;  ///< N before merging
  std::int64_t left = 0;    ///< N - r after it
  TokenGroups groups{};  ///< the same in passes with fused operations, with or without `positions`

  std::int64_t merged() const { return tokens - left; }
};

/// Matches the tokens by cosine similarity of `metric` (B, N, d). Set A holds those at even
/// positions, B those at odd ones; the r members of A with the most similar partner in B join it; r
/// is capped at floor((N - protected) / 2). Ties: lowest partner, then stable order.
///
/// `protected_tokens`: 1 for a class token, never merged away; 2 for a distillation token behind
/// it, never joined. Output order: what is kept of A (by score when nothing is protected), then B;
/// with a distillation token [A_0, B_0, the rest of A, the rest of B], so that both stay in front.
MergePlan match_tokens(const at::Tensor& metric, std::int64_t r, std::int64_t protected_tokens);

/// x (B, N, C) -> (B, N - r, C): members of a group added up. A plan that merges nothing gives back
/// what it got.
at::Tensor merge_sum(const MergePlan& plan, const at::Tensor& x);

/// Size-weighted mean of each group and the new sizes; `sizes` (B, N, 1), undefined for all ones. A
/// plan that merges nothing gives back what it got.
std::pair<at::Tensor, at::Tensor> merge_weighted(const MergePlan& plan, const at::Tensor& x,
                                                 const at::Tensor& sizes);

/// The token that each group keeps when the others are dropped instead of merged, (B, N - r): the
/// one that the others would have joined, or the only one.
at::Tensor representatives(const MergePlan& plan);

// Within a forward pass; each has a fused form on CUDA, taken when state.fused is set.

/// match_tokens() by the mean of keys (B, H, N, d) over the heads.
MergePlan match_keys(const at::Tensor& keys, std::int64_t r, const ForwardState& state);
/// match_tokens() by any other metric (B, N, d).
MergePlan match_metric(const at::Tensor& metric, std::int64_t r, const ForwardState& state);
/// The stream with its groups of tokens merged, of which the fused form leaves the arithmetic to
/// the next join; token sizes, carried keys and sources of the pass follow.
TokenStream merge_stream(const MergePlan& plan, const TokenStream& stream, ForwardState& state);

/// Copies merged tokens back: x (B, N', C), sources (B, N0) as ForwardState::sources -> (B, N0, C).
at::Tensor unmerge(const at::Tensor& x, const at::Tensor& sources);

/// Tokens to merge in each of `depth` blocks: constant r for inflect 0, falling from 2r to 0 for
/// -1, rising for +1. Truncation may make the sum smaller than r * depth, as in the published code.
std::vector<std::int64_t> merge_schedule(std::int64_t r, double inflect, std::int64_t depth);

}  // namespace ablate
