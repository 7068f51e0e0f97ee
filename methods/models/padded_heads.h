#pragma once

#include "methods/models/ops.h"

namespace ablate::ops {

/// Packed rows (B, N, ..) of heads of any widths as rows of equally wide ones, (B, N, 3 H width):
/// each head's numbers, then zeros. Queries are multiplied by `factor`. Attention of the padded
/// heads has the logits and outputs of the others, and zeros.
at::Tensor pad_heads(const at::Tensor& qkv, const AttentionHeads& heads, std::int64_t width,
                     double factor);

/// Output (B, N, H width) of padded heads without what was padded: (B, N, heads.values()).
at::Tensor unpad_values(const at::Tensor& mixed, const AttentionHeads& heads, std::int64_t width);

}  // namespace ablate::ops
