#pragma once

#include <cstdint>

#include "methods/kernels/bfloat16.h"
#include "methods/kernels/token_groups.h"

namespace ablate::kernels {

/// Bipartite soft matching (Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023) by
/// cosine similarity of the keys, averaged over the heads. Set A is the tokens at even positions, B
/// those at odd ones; the `merged` members of A with the most similar partner in B join it. Ties:
/// the lowest partner, the lowest member. A class token (first) never joins, a distillation token
/// (second) is never joined. New order: what is left of A (ascending, or by falling similarity
/// without a class token), then B; with a distillation token A_0, B_0, the rest of A, the rest of
/// B.
///
/// One block an image; similarities in float. Reads the keys once while the vectors of an image fit
/// into shared memory (N <= 1400 at d = 64 on sm_90), those of B again for parts of A otherwise.
/// Same bits in every run. Heads of d channels, d a multiple of 8 up to 256; qkv is aligned to 16
/// bytes.
struct TokenMatch {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;  ///< N, up to 4096
  std::int64_t heads = 0;
  int head_dim = 64;
  std::int64_t merged = 0;        ///< r, at most most_merged(N, protected)
  int protected_tokens = 0;       ///< 0; 1: class token; 2: class and distillation token
  const bfloat16* qkv = nullptr;  ///< (B, N, 3, H, d)
  TokenGroups groups{};           ///< N' = N - r; written
  TokenWeights weights{};         ///< of the groups
};

/// How many of N tokens can join others: floor((N - protected) / 2), at least 0.
std::int64_t most_merged(std::int64_t tokens, int protected_tokens);

void match_tokens(const TokenMatch& arguments, Stream stream);

namespace reference {
void match_tokens(const TokenMatch& arguments);
}  // namespace reference

}  // namespace ablate::kernels
