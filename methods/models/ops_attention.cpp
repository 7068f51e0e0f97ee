#include <cmath>

#include "methods/models/ops.h"
#include "methods/models/uncounted.h"

// Softmax attention whose matrix somebody looks at.

namespace ablate::ops {
namespace {

constexpr double kEpsilon = 1e-6;

/// Logits (B, H, M, N) of M queries, in float at least.
at::Tensor logits_of(const at::Tensor& queries, const at::Tensor& keys, std::int64_t scale_width,
                     const at::Tensor& key_bias) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(scale_width));
  const at::Tensor products = at::matmul(queries, keys.transpose(2, 3));
  const at::Tensor logits =
      products.to(at::promote_types(products.scalar_type(), at::kFloat)) * scale;
  if (!key_bias.defined()) return logits;
  return logits + key_bias.to(logits.scalar_type()).unsqueeze(1).unsqueeze(1);
}

/// Softmax of the first M rows of a matrix whose columns are masked.
at::Tensor masked_softmax(const at::Tensor& logits, const at::Tensor& mask) {
  const std::int64_t rows = logits.size(2), tokens = logits.size(3);
  const at::Tensor self = at::eye(rows, tokens, logits.options());
  const at::Tensor columns = mask.to(logits.scalar_type()).unsqueeze(1).unsqueeze(1);
  const at::Tensor seen = columns + (1.0 - columns) * self;
  const at::Tensor top = std::get<0>(logits.detach().max(-1, /*keepdim=*/true));
  const at::Tensor weights = (logits - top).exp() * seen;
  return (weights + kEpsilon / static_cast<double>(tokens)) /
         (weights.sum(-1, /*keepdim=*/true) + kEpsilon);
}

}  // namespace

at::Tensor masked_attention(const at::Tensor& qkv, const AttentionHeads& heads,
                            const at::Tensor& key_bias, const at::Tensor& mask) {
  const auto parts = unpack_heads(qkv, heads);
  const at::Tensor weights =
      masked_softmax(logits_of(parts[0], parts[1], heads.scale_width, key_bias), mask);
  const at::Tensor mixed = at::matmul(weights.to(qkv.scalar_type()), parts[2]);
  return mixed.transpose(1, 2).reshape({qkv.size(0), qkv.size(1), heads.values()});
}

at::Tensor class_attention(const at::Tensor& qkv, const AttentionHeads& heads,
                           const at::Tensor& key_bias, const at::Tensor& mask) {
  const UncountedScope uncounted;
  const auto parts = unpack_heads(qkv, heads);
  const at::Tensor logits =
      logits_of(parts[0].narrow(2, 0, 1), parts[1], heads.scale_width, key_bias);
  const at::Tensor row = mask.defined() ? masked_softmax(logits, mask) : at::softmax(logits, -1);
  return row.squeeze(2);
}

}  // namespace ablate::ops
