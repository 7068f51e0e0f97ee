#include "methods/models/ops.h"

#include <utility>

#include "methods/models/fused/fused_ops.h"

namespace ablate::ops {
namespace {

/// Without CUDA there is no fused form, and no FusedContext to ask for it.
constexpr bool kFusable = ABLATE_HAS_CUDA != 0;

}  // namespace

at::Tensor linear(const at::Tensor& x, const Linear& layer, ForwardState& state,
                  BiasGradient bias_gradient) {
  if constexpr (kFusable) {
    if (state.fused) {
      const bool own = bias_gradient == BiasGradient::Linear;
      if (!own) state.deferred_bias = layer.bias;
      return fused::linear(x, layer, *state.fused, own);
    }
  }
  return layer.forward(x);
}

at::Tensor linear_gelu(const at::Tensor& x, const Linear& layer, ForwardState& state) {
  if constexpr (kFusable) {
    if (state.fused) return fused::linear_gelu(x, layer, *state.fused);
  }
  return at::gelu(layer.forward(x));
}

namespace {

at::Tensor plain_attention(const at::Tensor& qkv, std::int64_t heads, const at::Tensor& key_bias) {
  const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), dim = qkv.size(2) / 3;
  // Unbound before the transpose: the backward of unbind then writes the gradient in the layout of
  // qkv's output, without a second copy.
  const auto parts = qkv.view({batch, tokens, 3, heads, dim / heads}).unbind(2);
  std::optional<at::Tensor> bias;
  if (key_bias.defined()) {
    bias = key_bias.to(qkv.scalar_type()).view({batch, 1, 1, tokens});
    bias = bias->expand({batch, 1, tokens, tokens});
  }
  const at::Tensor mixed = at::scaled_dot_product_attention(
      parts[0].transpose(1, 2), parts[1].transpose(1, 2), parts[2].transpose(1, 2), bias);
  return mixed.transpose(1, 2).reshape({batch, tokens, dim});
}

}  // namespace

at::Tensor attention(const at::Tensor& qkv, std::int64_t num_heads, const at::Tensor& key_bias,
                     ForwardState& state) {
  if constexpr (kFusable) {
    const std::int64_t head_dim = qkv.size(2) / 3 / num_heads;
    if (state.fused && fused::attention_supported(qkv.size(1), head_dim)) {
      return fused::attention(qkv, num_heads, key_bias, std::exchange(state.deferred_bias, {}),
                              *state.fused);
    }
  }
  return plain_attention(qkv, num_heads, key_bias);
}

BiasGradient attention_bias_gradient(std::int64_t tokens, std::int64_t head_dim,
                                     const ForwardState& state) {
  if constexpr (kFusable) {
    if (state.fused && fused::attention_supported(tokens, head_dim)) return BiasGradient::Consumer;
  }
  return BiasGradient::Linear;
}

Normed join_and_norm(const TokenStream& stream, const LayerNorm& norm, ForwardState& state) {
  if constexpr (kFusable) {
    if (state.fused) return fused::join_and_norm(stream, norm, *state.fused);
  }
  const at::Tensor x = stream.value();
  return {x, norm.forward(x)};
}

at::Tensor join_and_norm_first(const TokenStream& stream, std::int64_t tokens,
                               const LayerNorm& norm, ForwardState& state) {
  if constexpr (kFusable) {
    if (state.fused) return fused::join_and_norm_first(stream, tokens, norm, *state.fused);
  }
  return norm.forward(stream.value().narrow(1, 0, tokens));
}

at::Tensor join(const TokenStream& stream, ForwardState& state) {
  if constexpr (kFusable) {
    if (state.fused) return fused::join(stream, *state.fused);
  }
  return stream.value();
}

at::Tensor embed_patches(const at::Tensor& images, const Embedding& embedding,
                         ForwardState& state) {
  if constexpr (kFusable) {
    if (state.fused) return fused::embed_patches(images, embedding, *state.fused);
  }
  const std::int64_t batch = images.size(0), patch = embedding.weight.size(2);
  const std::int64_t grid = images.size(2) / patch;
  // A convolution whose stride is its kernel is one matrix product over unfolded patches, which
  // yields tokens in their final layout.
  const at::Tensor patches = images.reshape({batch, 3, grid, patch, grid, patch})
                                 .permute({0, 2, 4, 1, 3, 5})
                                 .reshape({batch, grid * grid, 3 * patch * patch});
  std::vector<at::Tensor> parts;
  for (const at::Tensor& token : embedding.prefix) parts.push_back(token.expand({batch, -1, -1}));
  parts.push_back(ablate::linear(patches, embedding.weight.flatten(1), embedding.bias));
  return at::cat(parts, 1).add_(embedding.position);
}

namespace {

/// -(sum_k t_k log p_k) with t = smooth(label), per row.
at::Tensor smoothed_nll(const at::Tensor& log_probs, const at::Tensor& labels, double smoothing) {
  const at::Tensor nll = -log_probs.gather(1, labels.unsqueeze(1)).squeeze(1);
  if (smoothing == 0.0) return nll;
  return (1.0 - smoothing) * nll - smoothing * log_probs.mean(1);
}

}  // namespace

at::Tensor cross_entropy(const at::Tensor& logits, const SoftTargets& targets) {
  if constexpr (kFusable) {
    if (logits.is_cuda() && logits.scalar_type() != at::kDouble) {
      return fused::cross_entropy(logits, targets);
    }
  }
  const at::Tensor log_probs = at::log_softmax(logits, -1);
  at::Tensor loss = smoothed_nll(log_probs, targets.labels, targets.smoothing);
  if (targets.other.defined()) {
    const at::Tensor mix = targets.mix.to(loss.scalar_type());
    loss = mix * loss + (1.0 - mix) * smoothed_nll(log_probs, targets.other, targets.smoothing);
  }
  return loss.mean();
}

}  // namespace ablate::ops
