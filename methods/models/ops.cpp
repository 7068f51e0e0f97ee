#include "methods/models/ops.h"

#include <cmath>
#include <optional>
#include <utility>

#include "methods/models/fused/fused_ops.h"
#include "methods/models/padded_heads.h"

namespace ablate::ops {
namespace {

/// Without CUDA there is no fused form, and no FusedContext to ask for it.
constexpr bool kFusable = ABLATE_HAS_CUDA != 0;

}  // namespace

at::Tensor linear(const at::Tensor& x, const Linear& layer, ForwardState& state,
                  BiasGradient bias_gradient) {
  if constexpr (kFusable) {
    // There is no fused form without bias.
    if (state.fused && !layer.bias.defined()) {
      return at::linear(x, layer.weight.to(x.scalar_type()));
    }
    if (state.fused) {
      const bool own = bias_gradient == BiasGradient::Linear;
      if (!own) state.deferred_bias = layer.bias;
      return fused::linear(x, layer, *state.fused, own);
    }
  }
  return layer.forward(x);
}

at::Tensor class_scores(const at::Tensor& x, const Linear& layer, ForwardState& state) {
  if constexpr (kFusable) {
    if (state.fused) {
      std::vector<std::int64_t> shape = x.sizes().vec();
      shape.back() = layer.weight.size(0);
      return fused::class_scores(x.flatten(0, -2), layer, *state.fused).view(shape);
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

std::vector<at::Tensor> unpack_heads(const at::Tensor& qkv, const AttentionHeads& heads) {
  const std::int64_t batch = qkv.size(0), tokens = qkv.size(1);
  std::vector<at::Tensor> parts;
  if (heads.query_width == heads.value_width) {
    // Unbound before the transpose: the backward of unbind then writes the gradient in the layout
    // of qkv's output, without a second copy.
    parts = qkv.view({batch, tokens, 3, heads.count, heads.query_width}).unbind(2);
  } else {
    parts = qkv.split_with_sizes({heads.queries(), heads.queries(), heads.values()}, 2);
    for (at::Tensor& part : parts) {
      part = part.view({batch, tokens, heads.count, part.size(2) / heads.count});
    }
  }
  for (at::Tensor& part : parts) part = part.transpose(1, 2);
  return parts;
}

namespace {

at::Tensor plain_attention(const at::Tensor& qkv, const AttentionHeads& heads,
                           const at::Tensor& key_bias) {
  const std::int64_t batch = qkv.size(0), tokens = qkv.size(1);
  const auto parts = unpack_heads(qkv, heads);
  std::optional<at::Tensor> bias;
  if (key_bias.defined()) {
    bias = key_bias.to(qkv.scalar_type()).view({batch, 1, 1, tokens});
    bias = bias->expand({batch, 1, tokens, tokens});
  }
  std::optional<double> scale;
  if (heads.scale_width != heads.query_width) {
    scale = 1.0 / std::sqrt(static_cast<double>(heads.scale_width));
  }
  const at::Tensor mixed = at::scaled_dot_product_attention(
      parts[0], parts[1], parts[2], bias, /*dropout_p=*/0.0, /*is_causal=*/false, scale);
  return mixed.transpose(1, 2).reshape({batch, tokens, heads.values()});
}

bool fusable(std::int64_t tokens, const AttentionHeads& heads, const ForwardState& state) {
  if constexpr (kFusable) {
    return state.fused && heads.uniform() && fused::attention_supported(tokens, heads.query_width);
  }
  return false;
}

/// To which the fused attention takes heads when they are padded; 0: it takes none that are so
/// wide.
std::int64_t padded_width(std::int64_t tokens, const AttentionHeads& heads) {
  if constexpr (kFusable) {
    constexpr std::int64_t kWidths[] = {32, 64};
    for (const std::int64_t width : kWidths) {
      const bool fits = heads.query_width <= width && heads.value_width <= width;
      if (fits && fused::attention_supported(tokens, width)) return width;
    }
  }
  return 0;
}

/// Heads of which channels were cut: two copies instead of a matrix of all pairs of tokens.
at::Tensor padded_attention(const at::Tensor& qkv, const AttentionHeads& heads, std::int64_t width,
                            const at::Tensor& key_bias, ForwardState& state) {
  if constexpr (kFusable) {
    const double factor =
        std::sqrt(static_cast<double>(width) / static_cast<double>(heads.scale_width));
    const at::Tensor padded = pad_heads(qkv, heads, width, factor);
    return unpad_values(fused::attention(padded, heads.count, key_bias, {}, *state.fused), heads,
                        width);
  }
  return {};
}

}  // namespace

at::Tensor attention(const at::Tensor& qkv, const AttentionHeads& heads, const at::Tensor& key_bias,
                     ForwardState& state) {
  if constexpr (kFusable) {
    if (fusable(qkv.size(1), heads, state)) {
      return fused::attention(qkv, heads.count, key_bias, std::exchange(state.deferred_bias, {}),
                              *state.fused);
    }
    const std::int64_t width = state.fused ? padded_width(qkv.size(1), heads) : 0;
    if (width > 0) return padded_attention(qkv, heads, width, key_bias, state);
  }
  return plain_attention(qkv, heads, key_bias);
}

BiasGradient attention_bias_gradient(std::int64_t tokens, const AttentionHeads& heads,
                                     const ForwardState& state) {
  return fusable(tokens, heads, state) ? BiasGradient::Consumer : BiasGradient::Linear;
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
  const std::int64_t batch = images.size(0), patch = embedding.weight.size(2),
                     rows = images.size(2) / patch, columns = images.size(3) / patch;
  // A convolution whose stride is its kernel is one matrix product over unfolded patches, which
  // yields tokens in their final layout.
  const at::Tensor patches = images.reshape({batch, 3, rows, patch, columns, patch})
                                 .permute({0, 2, 4, 1, 3, 5})
                                 .reshape({batch, rows * columns, 3 * patch * patch});
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
