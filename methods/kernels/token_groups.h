#pragma once

#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

/// Where the tokens of a batch go when some of them join others, in a form that makes merging and
/// its gradient pure gathers. N' groups, each of at least one token; new token p of image b is
/// the group members[b][offsets[b][p]] .. members[b][offsets[b][p + 1] - 1], ascending.
struct TokenGroups {
  std::int32_t* positions = nullptr;  ///< (B, N): the group of each token
  std::int32_t* offsets = nullptr;    ///< (B, N' + 1)
  std::int32_t* members = nullptr;    ///< (B, N)
};

/// How many original tokens each token stands for, before and after it is grouped, and what follows
/// from that. What is null is not wanted.
struct TokenWeights {
  const float* sizes = nullptr;   ///< (B, N), or null: all 1
  float* merged_sizes = nullptr;  ///< (B, N'): sums of the groups
  float* log_sizes = nullptr;     ///< (B, N'): their logarithms, key bias of proportional attention
  float* shares = nullptr;        ///< (B, N): sizes[n] / merged_sizes[positions[n]]
};

/// offsets and members from positions, of any grouping without empty groups; N <= 4096.
struct TokenGrouping {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;      ///< N
  std::int64_t new_tokens = 0;  ///< N'
  TokenGroups groups{};         ///< positions are read, the others written
  TokenWeights weights{};
};
void group_tokens(const TokenGrouping& arguments, Stream stream);

/// to[b][n] = second[b][first[b][n]]: groups of groups, to follow tokens through several blocks.
struct PositionChain {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;               ///< of `first` and `to`
  std::int64_t middle_tokens = 0;        ///< of `second`
  const std::int32_t* first = nullptr;   ///< (B, tokens)
  const std::int32_t* second = nullptr;  ///< (B, middle_tokens)
  std::int32_t* to = nullptr;            ///< (B, tokens); may be `first`
};
void chain_positions(const PositionChain& arguments, Stream stream);

namespace reference {
void weigh_groups(const TokenGrouping& arguments);  ///< weights from the rest
void group_tokens(const TokenGrouping& arguments);
void chain_positions(const PositionChain& arguments);
}  // namespace reference

}  // namespace ablate::kernels
