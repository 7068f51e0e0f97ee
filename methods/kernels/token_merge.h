#pragma once

#include <cstdint>

#include "methods/kernels/bfloat16.h"
#include "methods/kernels/token_groups.h"

namespace ablate::kernels {

// Moving tokens into groups and back (Bolya et al., "Token Merging: Your ViT But Faster", ICLR
// 2023), in both directions by gathering: no float is added to by two threads, the same bits come
// out in every run. T is float or bfloat16, sums are in float. Any width; multiples of 16 bytes run
// at full speed where all pointers are aligned to 16 bytes. Every element is read and written once.

/// Means of the groups, weighted by how many original tokens each token stands for:
///   merged[p] = sum of sizes[j] x[j] / merged_sizes[p],  merged_sizes[p] = sum of sizes[j]
/// over the members j of group p. A token that stays alone keeps its value exactly.
template <typename T>
struct TokenMerge {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;      ///< N
  std::int64_t new_tokens = 0;  ///< N'
  std::int64_t width = 0;
  const T* x = nullptr;                   ///< (B, N, width)
  const float* sizes = nullptr;           ///< (B, N), or null: all 1
  const std::int32_t* offsets = nullptr;  ///< (B, N' + 1), see TokenGroups
  const std::int32_t* members = nullptr;  ///< (B, N)
  T* merged = nullptr;                    ///< (B, N', width)
  float* merged_sizes = nullptr;          ///< (B, N'), or null
  float* log_sizes = nullptr;             ///< (B, N'), key bias of proportional attention, or null
};
template <typename T>
void merge_tokens(const TokenMerge<T>& arguments, Stream stream);

/// grad_x[j] = sizes[j] / merged_sizes[p] grad_merged[p] for the group p of j.
template <typename T>
struct TokenMergeBackward {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;
  std::int64_t new_tokens = 0;
  std::int64_t width = 0;
  const T* grad_merged = nullptr;           ///< (B, N', width)
  const float* sizes = nullptr;             ///< (B, N), or null: all 1
  const float* merged_sizes = nullptr;      ///< (B, N')
  const std::int32_t* positions = nullptr;  ///< (B, N)
  T* grad_x = nullptr;                      ///< (B, N, width)
};
template <typename T>
void merge_tokens_backward(const TokenMergeBackward<T>& arguments, Stream stream);

/// Every token gets the value of its group: out[n] = x[positions[n]].
template <typename T>
struct TokenUnmerge {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;      ///< N
  std::int64_t new_tokens = 0;  ///< N'
  std::int64_t width = 0;
  const T* x = nullptr;                     ///< (B, N', width)
  const std::int32_t* positions = nullptr;  ///< (B, N)
  T* out = nullptr;                         ///< (B, N, width)
};
template <typename T>
void unmerge_tokens(const TokenUnmerge<T>& arguments, Stream stream);

/// grad_x[p] = sum of grad_out[n] over the members n of group p, ascending.
template <typename T>
struct TokenUnmergeBackward {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;
  std::int64_t new_tokens = 0;
  std::int64_t width = 0;
  const T* grad_out = nullptr;            ///< (B, N, width)
  const std::int32_t* offsets = nullptr;  ///< (B, N' + 1)
  const std::int32_t* members = nullptr;  ///< (B, N)
  T* grad_x = nullptr;                    ///< (B, N', width)
};
template <typename T>
void unmerge_tokens_backward(const TokenUnmergeBackward<T>& arguments, Stream stream);

namespace reference {
template <typename T>
void merge_tokens(const TokenMerge<T>& arguments);
template <typename T>
void merge_tokens_backward(const TokenMergeBackward<T>& arguments);
template <typename T>
void unmerge_tokens(const TokenUnmerge<T>& arguments);
template <typename T>
void unmerge_tokens_backward(const TokenUnmergeBackward<T>& arguments);
}  // namespace reference

}  // namespace ablate::kernels
