#pragma once

#include "methods/models/ops.h"

namespace ablate::fused {

// The CUDA forms of ops.h; state.fused is set. Inputs on its device; activations bfloat16, residual
// streams float.

at::Tensor linear(const at::Tensor& x, const Linear& layer, FusedContext& context,
                  bool own_bias_gradient);
at::Tensor class_scores(const at::Tensor& x, const Linear& layer, FusedContext& context);
at::Tensor linear_gelu(const at::Tensor& x, const Linear& layer, FusedContext& context);
/// Whether attention() takes sequences of this length and head width.
bool attention_supported(std::int64_t tokens, std::int64_t head_dim);
/// `qkv_bias`: of the Linear that made qkv, when its gradient is to be added up here.
at::Tensor attention(const at::Tensor& qkv, std::int64_t num_heads, const at::Tensor& key_bias,
                     const at::Tensor& qkv_bias, FusedContext& context);
ops::Normed join_and_norm(const TokenStream& stream, const LayerNorm& norm, FusedContext& context);
at::Tensor join_and_norm_first(const TokenStream& stream, std::int64_t tokens,
                               const LayerNorm& norm, FusedContext& context);
at::Tensor join(const TokenStream& stream, FusedContext& context);
at::Tensor embed_patches(const at::Tensor& images, const ops::Embedding& embedding,
                         FusedContext& context);
at::Tensor conv2d(const at::Tensor& x, const Conv2d& conv, FusedContext& context);
at::Tensor conv2d_images(const at::Tensor& images, const Conv2d& conv, FusedContext& context);
at::Tensor batch_norm_relu(const at::Tensor& x, GroupBatchNorm2d& norm, const ForwardState& state);
ops::Fork batch_norm_add_relu(const at::Tensor& x, GroupBatchNorm2d& norm,
                              const ops::Shortcut& shortcut, const ForwardState& state);
ops::Fork batch_norm_relu_pool(const at::Tensor& x, GroupBatchNorm2d& norm,
                               const ForwardState& state);
/// Takes any logits on a CUDA device but doubles; the context is not needed.
at::Tensor cross_entropy(const at::Tensor& logits, const ops::SoftTargets& targets);

}  // namespace ablate::fused
