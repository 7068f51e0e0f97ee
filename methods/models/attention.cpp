#include "methods/models/attention.h"

#include "methods/models/ops.h"
#include "runner/core/error.h"

namespace ablate {

Attention::Attention(std::int64_t dim, std::int64_t num_heads)
    : qkv(register_module("qkv", std::make_shared<Linear>(dim, 3 * dim))),
      proj(register_module("proj", std::make_shared<Linear>(dim, dim))),
      num_heads_(num_heads) {
  ABLATE_CHECK(num_heads > 0 && dim % num_heads == 0, dim, " channels, ", num_heads, " heads");
}

at::Tensor Attention::forward(const at::Tensor& tokens, ForwardState& state) {
  const std::int64_t batch = tokens.size(0), length = tokens.size(1), dim = tokens.size(2);
  const std::int64_t head_dim = dim / num_heads_;
  const at::Tensor packed =
      ops::linear(tokens, *qkv, state, ops::attention_bias_gradient(length, head_dim, state));
  if (state.want_keys) {
    state.keys = packed.view({batch, length, 3, num_heads_, head_dim}).select(2, 1);
    state.keys = state.keys.transpose(1, 2);
  }
  at::Tensor key_bias;
  if (state.proportional_attention && state.token_sizes.defined()) {
    key_bias = state.log_sizes;
    if (!key_bias.defined()) {
      const auto precise = at::promote_types(tokens.scalar_type(), at::kFloat);
      key_bias = state.token_sizes.detach().to(precise).log().view({batch, length});
    }
  }
  const at::Tensor mixed = ops::attention(packed, num_heads_, key_bias, state);
  return ops::linear(mixed, *proj, state, ops::BiasGradient::Consumer);
}

}  // namespace ablate
