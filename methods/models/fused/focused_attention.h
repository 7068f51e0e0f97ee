#pragma once

#include "methods/models/ops_grid.h"

namespace ablate::fused {

/// Whether focused_attention() takes heads of this width and convolutions of this side, 0: none.
bool focused_attention_supported(std::int64_t head_dim, std::int64_t kernel_side);
/// ops::focused_attention() of bfloat16 rows; the gradient comes packed as the rows are.
at::Tensor focused_attention(const at::Tensor& qkv, const ops::FocusedAttention& attention);

}  // namespace ablate::fused
