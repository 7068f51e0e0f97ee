#pragma once

#include <cstdint>

#include "runner/torch/torch.h"

// Maps (B, C, h, w) in other sizes. On CUDA each is a product with two matrices, one an axis: the
// backward of the framework's own operations adds atomically there, in any order. None counts as
// multiply-accumulates. Results in channels-last order where products are taken.

namespace ablate::ops {

/// Bilinear interpolation between the centres of places (align_corners = false), without
/// antialiasing.
at::Tensor resize_bilinear(const at::Tensor& map, std::int64_t height, std::int64_t width);

/// Means over height x width cells that cover the map: cell i of n reaches from floor(i h / n) to
/// ceil((i + 1) h / n).
at::Tensor average_to(const at::Tensor& map, std::int64_t height, std::int64_t width);

/// Maxima of 2 x 2 places; an odd row or column at the end is left out. Of equal ones the first
/// gets the gradient.
at::Tensor halve_by_max(const at::Tensor& map);

/// y = rows x columns^T in each channel, for rows (H, h) and columns (W, w).
at::Tensor weigh_places(const at::Tensor& map, const at::Tensor& rows, const at::Tensor& columns);
/// The matrices of the two resizings, (out, in), of these options.
at::Tensor bilinear_weights(std::int64_t in, std::int64_t out, const at::TensorOptions& options);
at::Tensor average_weights(std::int64_t in, std::int64_t out, const at::TensorOptions& options);

}  // namespace ablate::ops
