#pragma once

#include "runner/torch/torch.h"

namespace ablate {

/// sum over pixels of factor * (log sum_k exp z_k - z_y), for scores z (B, K, H, W), classes y
/// (B, H, W) int64 in [0, K) and factors (B, H, W). The backward keeps no probabilities and adds
/// nothing atomically.
at::Tensor pixel_cross_entropy(const at::Tensor& scores, const at::Tensor& classes,
                               const at::Tensor& factors);

}  // namespace ablate
