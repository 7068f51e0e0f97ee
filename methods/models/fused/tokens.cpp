#include "methods/models/fused/tokens.h"

#include "methods/kernels/token_match.h"
#include "methods/kernels/token_merge.h"
#include "methods/models/fused/common.h"
#include "runner/core/error.h"

namespace ablate::fused {
namespace {

constexpr std::int64_t kMostTokens = 4096;

TokenGroups empty_groups(std::int64_t batch, std::int64_t tokens, std::int64_t count,
                         at::Device device) {
  const auto numbers = at::TensorOptions().device(device).dtype(at::kInt);
  const auto floats = numbers.dtype(at::kFloat);
  return {.positions = at::empty({batch, tokens}, numbers),
          .offsets = at::empty({batch, count + 1}, numbers),
          .members = at::empty({batch, tokens}, numbers),
          .shares = at::empty({batch, tokens}, floats),
          .sizes = at::empty({batch, count}, floats),
          .log_sizes = at::empty({batch, count}, floats)};
}

kernels::TokenGroups maps_of(const TokenGroups& groups) {
  return {int_data(groups.positions), int_data(groups.offsets), int_data(groups.members)};
}

kernels::TokenWeights weights_of(const TokenGroups& groups, const at::Tensor& sizes) {
  ABLATE_CHECK(!sizes.defined() || (sizes.is_contiguous() && sizes.scalar_type() == at::kFloat &&
                                    sizes.numel() == groups.positions.numel()),
               "token sizes are float (B, N, 1)");
  return {.sizes = float_data(sizes),
          .merged_sizes = float_data(groups.sizes),
          .log_sizes = float_data(groups.log_sizes),
          .shares = float_data(groups.shares)};
}

/// Elements of one token of packed q, k, v.
std::int64_t packed_stride(const at::Tensor& keys) { return 3 * keys.size(1) * keys.size(3); }

bool is_packed_view(const at::Tensor& keys) {
  const std::int64_t width = keys.size(3), stride = packed_stride(keys);
  return keys.storage_offset() == stride / 3 && keys.stride(0) == keys.size(2) * stride &&
         keys.stride(1) == width && keys.stride(2) == stride && keys.stride(3) == 1;
}

}  // namespace

bool match_supported(const at::Tensor& keys) {
  const std::int64_t width = keys.size(3);
  return keys.is_cuda() && keys.scalar_type() == at::kBFloat16 && is_packed_view(keys) &&
         width % 8 == 0 && width <= 256 && keys.size(2) <= kMostTokens;
}

TokenGroups match_keys(const at::Tensor& keys, std::int64_t merged, std::int64_t protected_tokens,
                       const at::Tensor& sizes) {
  ABLATE_CHECK(match_supported(keys), "keys of ", keys.sizes(), " are no view that can be matched");
  const std::int64_t batch = keys.size(0), heads = keys.size(1), tokens = keys.size(2);
  TokenGroups groups = empty_groups(batch, tokens, tokens - merged, keys.device());
  kernels::match_tokens({.batch = batch,
                         .tokens = tokens,
                         .heads = heads,
                         .head_dim = static_cast<int>(keys.size(3)),
                         .merged = merged,
                         .protected_tokens = static_cast<int>(protected_tokens),
                         .qkv = half_data(keys) - packed_stride(keys) / 3,
                         .groups = maps_of(groups),
                         .weights = weights_of(groups, sizes)},
                        current_stream());
  return groups;
}

TokenGroups group_tokens(const at::Tensor& positions, std::int64_t count, const at::Tensor& sizes) {
  const std::int64_t batch = positions.size(0), tokens = positions.size(1);
  TokenGroups groups = empty_groups(batch, tokens, count, positions.device());
  groups.positions.copy_(positions);
  kernels::group_tokens({.batch = batch,
                         .tokens = tokens,
                         .new_tokens = count,
                         .groups = maps_of(groups),
                         .weights = weights_of(groups, sizes)},
                        current_stream());
  return groups;
}

at::Tensor merge_means(const TokenGroups& groups, const at::Tensor& x, const at::Tensor& sizes) {
  const at::Tensor from = x.contiguous();
  at::Tensor merged = at::empty({x.size(0), groups.count(), x.size(2)}, x.options());
  kernels::merge_tokens<float>({.batch = x.size(0),
                                .tokens = x.size(1),
                                .new_tokens = groups.count(),
                                .width = x.size(2),
                                .x = float_data(from),
                                .sizes = float_data(sizes),
                                .offsets = int_data(groups.offsets),
                                .members = int_data(groups.members),
                                .merged = float_data(merged),
                                .merged_sizes = nullptr,
                                .log_sizes = nullptr},
                               current_stream());
  return merged;
}

}  // namespace ablate::fused
