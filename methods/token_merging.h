#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "runner/torch/torch.h"

namespace ablate {

/// Which tokens of a batch join which: the result of bipartite soft matching (Bolya et al., "Token
/// Merging: Your ViT But Faster", ICLR 2023). Set A holds the tokens at even positions, B those at
/// odd ones; indices count within their set. Constants of the forward pass: no gradient. A plan
/// that merges nothing has no tensors and leaves every token where it is.
struct MergePlan {
  at::Tensor kept;          ///< (B, |A| - r) int64: members of A that stay, in output order
  at::Tensor source;        ///< (B, r) int64: members of A that are merged away
  at::Tensor destination;   ///< (B, r) int64: member of B that each source joins
  std::int64_t tokens = 0;  ///< N before merging
  std::int64_t protected_tokens = 0;  ///< 0; 1: class token first; 2: class, then distillation

  std::int64_t merged() const { return source.defined() ? source.size(1) : 0; }
};

/// Matches the tokens by cosine similarity of `metric` (B, N, d): the r members of A with the most
/// similar partner in B join it; r is capped at floor((N - protected) / 2). Ties: lowest partner,
/// then stable order. The class token is never merged away, the distillation token never joined.
MergePlan match_tokens(const at::Tensor& metric, std::int64_t r, std::int64_t protected_tokens);

/// x (B, N, C) -> (B, N - r, C): members of a group added up. Output order: [kept, B], with a
/// distillation token [kept_0, B_0, kept_1.., B_1..], so that protected tokens stay in front.
at::Tensor merge_sum(const MergePlan& plan, const at::Tensor& x);

/// Size-weighted mean of each group and the new sizes; `sizes` (B, N, 1), undefined for all ones. A
/// plan that merges nothing gives back what it got.
std::pair<at::Tensor, at::Tensor> merge_weighted(const MergePlan& plan, const at::Tensor& x,
                                                 const at::Tensor& sizes);

/// New position of each old token, (B, N) int64. The plan must merge something.
at::Tensor merge_positions(const MergePlan& plan);

/// Copies merged tokens back: x (B, N', C), sources (B, N0) as ForwardState::sources -> (B, N0, C).
at::Tensor unmerge(const at::Tensor& x, const at::Tensor& sources);

/// Tokens to merge in each of `depth` blocks: constant r for inflect 0, falling from 2r to 0 for
/// -1, rising for +1. Truncation may make the sum smaller than r * depth, as in the published code.
std::vector<std::int64_t> merge_schedule(std::int64_t r, double inflect, std::int64_t depth);

}  // namespace ablate
