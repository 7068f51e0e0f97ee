#pragma once

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

}  // namespace ablate::kernels
