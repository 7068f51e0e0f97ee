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

/// The same as scores of classes, which a fused pass keeps in float: rounded ones tie, and ties
/// count as errors.
at::Tensor class_scores(const at::Tensor& x, const Linear& layer, ForwardState& state);

/// GELU(x W^T + b), exact erf.
at::Tensor linear_gelu(const at::Tensor& x, const Linear& layer, ForwardState& state);

/// Heads of an attention. A packed row holds queries, keys and values, each head by head: `count *
/// query_width` numbers of the first and of the second, `count * value_width` of the third.
struct AttentionHeads {
  std::int64_t count = 1;
  std::int64_t query_width = 0, value_width = 0;
  std::int64_t scale_width = 0;  ///< d of the factor 1/sqrt(d) of logits

  std::int64_t queries() const { return count * query_width; }  ///< of all heads
  std::int64_t values() const { return count * value_width; }
  bool uniform() const { return query_width == value_width && query_width == scale_width; }
};
/// queries, keys and values (B, H, N, width) of packed rows, as views.
std::vector<at::Tensor> unpack_heads(const at::Tensor& qkv, const AttentionHeads& heads);

/// Softmax attention of packed rows (B, N, ..): (B, N, heads.values()). `key_bias` (B, N) float is
/// added to the logits of each key and gets no gradient; undefined: none.
/// Takes over state.deferred_bias, that of the Linear that made `qkv`.
at::Tensor attention(const at::Tensor& qkv, const AttentionHeads& heads, const at::Tensor& key_bias,
                     ForwardState& state);
/// The same among tokens with mask (B, N) 1, of 0 and 1, and each with itself:
///
///   a_ij = (m_ij e_ij + epsilon / N) / (sum_j m_ij e_ij + epsilon),  m_ij = mask_j for i != j,
///   m_ii = 1,
///
/// e_ij = exp(logit_ij - max_j logit_ij), epsilon = 1e-6; the mask gets a gradient, the maximum
/// does not (Rao et al., DynamicViT, NeurIPS 2021, eq. 10-11). One form, in ATen.
at::Tensor masked_attention(const at::Tensor& qkv, const AttentionHeads& heads,
                            const at::Tensor& key_bias, const at::Tensor& mask);
/// The row of the token in front of softmax attention, or of masked_attention() when `mask` is
/// defined: (B, H, N), in float at least. Counts as a part of the attention, which has computed it
/// where its matrix is kept. One form, in ATen.
at::Tensor class_attention(const at::Tensor& qkv, const AttentionHeads& heads,
                           const at::Tensor& key_bias, const at::Tensor& mask);
/// Who adds up the gradient of the bias in `qkv`, for sequences of that length.
BiasGradient attention_bias_gradient(std::int64_t tokens, const AttentionHeads& heads,
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
/// images (B, 3, H, W) of whole patches -> (B, N, C): prefix tokens, then projected patches row by
/// row, all plus their position.
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
