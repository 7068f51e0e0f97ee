#pragma once

#include "methods/models/layers.h"
#include "methods/models/slots.h"

namespace ablate {
class GroupBatchNorm2d;
}

namespace ablate::ops {

// Operations of which there are two forms: a plain one in ATen, which defines the result, and a
// fused one on CUDA, taken when the pass has a FusedContext (state.fused). Fused activations are
// bfloat16 and the residual stream is float; weights take part as bfloat16 copies, and their
// gradients go straight to the float gradient buffer.

/// Who adds up the gradient of a Linear's bias. A join finds it on its way through the gradient of
/// the branch, without a pass of its own.
enum class BiasGradient {
  Linear,    ///< the layer's own backward
  Consumer,  ///< state.deferred_bias names the bias, and whoever reads the output must take it over
};

/// y = x W^T + b over the last dimension.
at::Tensor linear(const at::Tensor& x, const Linear& layer, ForwardState& state,
                  BiasGradient bias_gradient = BiasGradient::Linear);

/// GELU(x W^T + b), exact erf.
at::Tensor linear_gelu(const at::Tensor& x, const Linear& layer, ForwardState& state);

/// Softmax attention of packed q, k, v (B, N, 3 C), rows as in Attention: (B, N, C). `key_bias`
/// (B, N) float is added to the logits of each key and gets no gradient; undefined: none.
/// Takes over state.deferred_bias, that of the Linear that made `qkv`.
at::Tensor attention(const at::Tensor& qkv, std::int64_t num_heads, const at::Tensor& key_bias,
                     ForwardState& state);
/// Who adds up the gradient of the bias in `qkv`, for sequences of that length and head width.
BiasGradient attention_bias_gradient(std::int64_t tokens, std::int64_t head_dim,
                                     const ForwardState& state);

/// A residual stream whose pending branch has been added, and its normalised form.
struct Normed {
  at::Tensor x;  ///< value() of the stream
  at::Tensor y;  ///< norm(x)
};
Normed join_and_norm(const TokenStream& stream, const LayerNorm& norm, ForwardState& state);

/// norm(x) of the first `tokens` tokens alone, (B, tokens, C): what heads read.
at::Tensor join_and_norm_first(const TokenStream& stream, std::int64_t tokens,
                               const LayerNorm& norm, ForwardState& state);

/// value() of the stream.
at::Tensor join(const TokenStream& stream, ForwardState& state);

/// Parameters that turn patches into tokens.
struct Embedding {
  at::Tensor weight, bias;         ///< (C, 3, P, P), (C): a convolution whose stride is its kernel
  std::vector<at::Tensor> prefix;  ///< class and distillation token, each (1, 1, C)
  at::Tensor position;             ///< (1, N, C), prefix included
};
/// images (B, 3, S, S) -> (B, N, C): prefix tokens, then projected patches row by row, all plus
/// their position.
at::Tensor embed_patches(const at::Tensor& images, const Embedding& embedding, ForwardState& state);

// Operations of convolutional models on feature maps (B, C, H, W). Fused ones are dense in
// channels-last order, with multiples of 8 channels.

/// y = x * W, without bias.
at::Tensor conv2d(const at::Tensor& x, const Conv2d& conv, ForwardState& state);
/// The same of images (B, 3, S, S), which get no gradient.
at::Tensor conv2d_images(const at::Tensor& images, const Conv2d& conv, ForwardState& state);

/// norm(x).
at::Tensor batch_norm(const at::Tensor& x, GroupBatchNorm2d& norm, ForwardState& state);
/// relu(norm(x)).
at::Tensor batch_norm_relu(const at::Tensor& x, GroupBatchNorm2d& norm, ForwardState& state);

/// A map that two paths read. Both are the same; their gradients are added up by the operation that
/// made it, without a pass of its own.
struct Fork {
  at::Tensor main, shortcut;
};
/// The second path of a residual block; with a norm, norm(x) is what is added.
struct Shortcut {
  at::Tensor x;
  GroupBatchNorm2d* norm = nullptr;
};
/// relu(norm(x) + shortcut).
Fork batch_norm_add_relu(const at::Tensor& x, GroupBatchNorm2d& norm, const Shortcut& shortcut,
                         ForwardState& state);
/// relu(norm(x)), then the maximum of 3x3 windows with stride 2 and padding 1.
Fork batch_norm_relu_pool(const at::Tensor& x, GroupBatchNorm2d& norm, ForwardState& state);

/// Targets of single-label classification: t = mix smooth(label) + (1 - mix) smooth(other), where
/// smooth(l) = (1 - smoothing) one_hot(l) + smoothing / classes.
struct SoftTargets {
  at::Tensor labels;  ///< (B) int64
  at::Tensor other;   ///< (B) int64: of the mixing partner; undefined without mixing
  at::Tensor mix;     ///< (B) float: share of `labels`; with `other`
  double smoothing = 0.0;
};
/// -mean_b sum_k t log softmax(logits), float; logits (B, K).
at::Tensor cross_entropy(const at::Tensor& logits, const SoftTargets& targets);

}  // namespace ablate::ops
