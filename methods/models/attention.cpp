#include "methods/models/attention.h"

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
  // Unbound before the transpose: the backward of unbind then writes the gradient in the layout of
  // qkv's output, without a second copy.
  const auto parts =
      qkv->forward(tokens).view({batch, length, 3, num_heads_, dim / num_heads_}).unbind(2);
  const at::Tensor q = parts[0].transpose(1, 2);
  const at::Tensor k = parts[1].transpose(1, 2);
  const at::Tensor v = parts[2].transpose(1, 2);
  if (state.want_keys) state.keys = k;

  std::optional<at::Tensor> bias;
  if (state.proportional_attention && state.token_sizes.defined()) {
    const auto precise = at::promote_types(q.scalar_type(), at::kFloat);
    bias = state.token_sizes.detach().to(precise).log().to(q.scalar_type());
    bias = bias->view({batch, 1, 1, length}).expand({batch, 1, length, length});
  }
  const at::Tensor mixed = at::scaled_dot_product_attention(q, k, v, bias);
  return proj->forward(mixed.transpose(1, 2).reshape({batch, length, dim}));
}

}  // namespace ablate
