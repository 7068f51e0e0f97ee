#pragma once

#include "runner/torch/torch.h"

namespace ablate::fused {

// Weighted sums of feature maps (B, C, H, W) on a CUDA device, in float or bfloat16 and in
// channels-last order, as the CUDA form of what layer_maps.h defines; without a tape. Weights are
// (B, g, t) for t <= 64 maps.

/// base (undefined: 0) + sum_i weights[.., i] maps[i].
at::Tensor layer_sum(const at::Tensor& base, const at::Tensor& weights, at::TensorList maps);

/// Of the weights: (B, heads, t) float, sums of upstream maps[i] over the pixels and channels of
/// each head.
at::Tensor layer_sum_gradient(const at::Tensor& upstream, at::TensorList maps, std::int64_t heads);

}  // namespace ablate::fused
