#pragma once

#include <cmath>

#include "methods/kernels/device.cuh"
#include "methods/kernels/token_groups.h"

namespace ablate::kernels {

// Counting instead of sorting: a rank is the number of those that come before. Blocks of 512
// threads, four to an item.

inline constexpr int kGroupThreads = 512;
inline constexpr std::int64_t kMostGroupedTokens = 4096;

/// Calls visit(item, how many j below `count` satisfy test(item, j)) for each item below `items`,
/// in one lane of the four that count.
template <typename Test, typename Visit>
__device__ __forceinline__ void count_for_each(int items, int count, const Test& test,
                                               const Visit& visit) {
  for (int begin = 0; begin < items; begin += kGroupThreads / 4) {
    const int item = begin + static_cast<int>(threadIdx.x) / 4;
    int sum = 0;
    if (item < items) {
#pragma unroll 4
      for (int j = static_cast<int>(threadIdx.x) % 4; j < count; j += 4) sum += test(item, j);
    }
    sum += __shfl_xor_sync(0xffffffffU, sum, 1);
    sum += __shfl_xor_sync(0xffffffffU, sum, 2);
    if (item < items && threadIdx.x % 4 == 0) visit(item, sum);
  }
}

/// offsets and members from the positions of one image in shared memory: token t stands among the
/// members at its rank by (group, token).
__device__ inline void write_groups(const int* positions, int tokens, int new_tokens,
                                    std::int32_t* offsets, std::int32_t* members) {
  count_for_each(
      tokens, tokens,
      [&](int t, int j) {
        return positions[j] < positions[t] || (positions[j] == positions[t] && j < t);
      },
      [&](int t, int rank) { members[rank] = t; });
  count_for_each(
      new_tokens + 1, tokens, [&](int group, int j) { return positions[j] < group; },
      [&](int group, int sum) { offsets[group] = sum; });
}

/// Sizes of the groups of one image and the shares of their members, after write_groups. All
/// threads of the block must call it.
__device__ inline void write_weights(const TokenWeights& weights, std::int64_t image, int tokens,
                                     int new_tokens, const std::int32_t* offsets,
                                     const std::int32_t* members) {
  if (weights.merged_sizes == nullptr && weights.log_sizes == nullptr && weights.shares == nullptr)
    return;
  __syncthreads();  // the groups are whole
  const std::int64_t first = image * tokens;
  for (int group = static_cast<int>(threadIdx.x); group < new_tokens; group += kGroupThreads) {
    const auto size_of = [&](int token) {
      return weights.sizes == nullptr ? 1.0F : weights.sizes[first + token];
    };
    float total = 0.0F;
    for (int i = offsets[group]; i < offsets[group + 1]; ++i) total += size_of(members[i]);
    const std::int64_t row = image * new_tokens + group;
    if (weights.merged_sizes != nullptr) weights.merged_sizes[row] = total;
    if (weights.log_sizes != nullptr) weights.log_sizes[row] = logf(total);
    if (weights.shares == nullptr) continue;
    for (int i = offsets[group]; i < offsets[group + 1]; ++i) {
      weights.shares[first + members[i]] = size_of(members[i]) / total;
    }
  }
}

}  // namespace ablate::kernels
