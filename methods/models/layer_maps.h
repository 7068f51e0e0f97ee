#pragma once

#include <vector>

#include "methods/models/layer_history.h"
#include "methods/models/slots.h"

namespace ablate {

// What layer and channel attention do with feature maps (B, C, H, W). Heads are groups of
// consecutive channels, g of them; factors of heads or channels are of any floating type and are
// rounded to that of the maps.

/// Means over the pixels, (B, C), in float at least.
at::Tensor pool_channels(const at::Tensor& map);

/// Cross-correlation of y (B, C) with kernels along the channels, each (1, 1, k) with odd k, zeros
/// beyond the ends: as many results (B, C).
std::vector<at::Tensor> channel_convs(const at::Tensor& y, const std::vector<at::Tensor>& kernels);

/// 3x3 convolution of each channel by itself, padding 1; kernels (C, 1, 3, 3).
at::Tensor depthwise_conv(const at::Tensor& map, const at::Tensor& kernels);

/// Factors of heads (B, g) as (B, C, 1, 1) in the type of `map`.
at::Tensor spread_heads(const at::Tensor& factors, const at::Tensor& map);

/// Factors of channels (B, C) as (B, C, 1, 1) in the type of `map`.
at::Tensor as_channel_factors(const at::Tensor& factors, const at::Tensor& map);

/// A map that several weighted sums will read. What they would add to its gradient is summed up
/// once all of them have been through their backward passes, instead of being added up one after
/// another.
SharedMap share_map(const at::Tensor& map);

/// sum_i weights[.., i] maps[i], weights (B, g, t), t >= 1. The maps are not brought together.
/// Fused passes take ours for bfloat16 maps.
at::Tensor weighted_sum(const at::Tensor& weights, const std::vector<SharedMap>& maps,
                        const ForwardState& state);

}  // namespace ablate
