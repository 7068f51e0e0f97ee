#include "methods/kernels/token_merge.h"

#include <cmath>

namespace ablate::kernels::reference {

template <typename T>
void merge_tokens(const TokenMerge<T>& a) {
  for (std::int64_t image = 0; image < a.batch; ++image) {
    const auto size_of = [&](std::int64_t token) {
      return a.sizes == nullptr ? 1.0 : double{a.sizes[image * a.tokens + token]};
    };
    const std::int32_t* members = a.members + image * a.tokens;
    const std::int32_t* offsets = a.offsets + image * (a.new_tokens + 1);
    for (std::int64_t group = 0; group < a.new_tokens; ++group) {
      const std::int64_t row = image * a.new_tokens + group;
      double total = 0.0;
      for (std::int32_t i = offsets[group]; i < offsets[group + 1]; ++i)
        total += size_of(members[i]);
      if (a.merged_sizes != nullptr) a.merged_sizes[row] = static_cast<float>(total);
      if (a.log_sizes != nullptr) a.log_sizes[row] = static_cast<float>(std::log(total));
      for (std::int64_t c = 0; c < a.width; ++c) {
        double sum = 0.0;
        for (std::int32_t i = offsets[group]; i < offsets[group + 1]; ++i) {
          sum += size_of(members[i]) *
                 double{to_float(a.x[(image * a.tokens + members[i]) * a.width + c])};
        }
        a.merged[row * a.width + c] = from_float<T>(static_cast<float>(sum / total));
      }
    }
  }
}

template <typename T>
void merge_tokens_backward(const TokenMergeBackward<T>& a) {
  for (std::int64_t token = 0; token < a.batch * a.tokens; ++token) {
    const std::int64_t row = token / a.tokens * a.new_tokens + a.positions[token];
    const double share = (a.sizes == nullptr ? 1.0 : double{a.sizes[token]}) / a.merged_sizes[row];
    for (std::int64_t c = 0; c < a.width; ++c) {
      a.grad_x[token * a.width + c] =
          from_float<T>(static_cast<float>(share * to_float(a.grad_merged[row * a.width + c])));
    }
  }
}

template <typename T>
void unmerge_tokens(const TokenUnmerge<T>& a) {
  for (std::int64_t token = 0; token < a.batch * a.tokens; ++token) {
    const std::int64_t row = token / a.tokens * a.new_tokens + a.positions[token];
    for (std::int64_t c = 0; c < a.width; ++c) a.out[token * a.width + c] = a.x[row * a.width + c];
  }
}

template <typename T>
void unmerge_tokens_backward(const TokenUnmergeBackward<T>& a) {
  for (std::int64_t row = 0; row < a.batch * a.new_tokens; ++row) {
    const std::int64_t image = row / a.new_tokens;
    const std::int32_t* offsets = a.offsets + image + row;  // one more offset than groups
    for (std::int64_t c = 0; c < a.width; ++c) {
      double sum = 0.0;
      for (std::int32_t i = offsets[0]; i < offsets[1]; ++i) {
        const std::int64_t token = image * a.tokens + a.members[image * a.tokens + i];
        sum += to_float(a.grad_out[token * a.width + c]);
      }
      a.grad_x[row * a.width + c] = from_float<T>(static_cast<float>(sum));
    }
  }
}

template void merge_tokens(const TokenMerge<float>&);
template void merge_tokens(const TokenMerge<bfloat16>&);
template void merge_tokens_backward(const TokenMergeBackward<float>&);
template void merge_tokens_backward(const TokenMergeBackward<bfloat16>&);
template void unmerge_tokens(const TokenUnmerge<float>&);
template void unmerge_tokens(const TokenUnmerge<bfloat16>&);
template void unmerge_tokens_backward(const TokenUnmergeBackward<float>&);
template void unmerge_tokens_backward(const TokenUnmergeBackward<bfloat16>&);

}  // namespace ablate::kernels::reference
