#include "methods/models/attention.h"

#include "methods/models/ops.h"
#include "methods/models/packed_rows.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

/// log(size) of each token, (B, N); undefined where attention is not proportional.
at::Tensor size_bias(const at::Tensor& tokens, const ForwardState& state) {
  if (!state.proportional_attention || !state.token_sizes.defined()) return {};
  if (state.log_sizes.defined()) return state.log_sizes;
  const auto precise = at::promote_types(tokens.scalar_type(), at::kFloat);
  return state.token_sizes.detach().to(precise).log().view({tokens.size(0), tokens.size(1)});
}

}  // namespace

Attention::Attention(std::int64_t dim, std::int64_t num_heads)
    : qkv(register_module("qkv", std::make_shared<Linear>(dim, 3 * dim))),
      proj(register_module("proj", std::make_shared<Linear>(dim, dim))) {
  ABLATE_CHECK(num_heads > 0 && dim % num_heads == 0, dim, " channels, ", num_heads, " heads");
  const std::int64_t width = dim / num_heads;
  query_key_ = {"qk", ChannelRole::QueryKey, num_heads, width, width};
  value_ = {"v", ChannelRole::Value, num_heads, width, width};
}

at::Tensor Attention::forward(const at::Tensor& tokens, ForwardState& state) {
  const at::Tensor packed = packed_operands(tokens, state);
  if (state.channel_observer) show(packed, state);
  if (state.want_keys) state.keys = ops::unpack_heads(packed, heads())[1];
  const at::Tensor key_bias = size_bias(tokens, state);
  if (state.want_class_attention) {
    state.class_attention =
        ops::class_attention(packed, heads(), key_bias, state.token_mask).mean(1);
  }
  const at::Tensor mixed = state.token_mask.defined()
                               ? ops::masked_attention(packed, heads(), key_bias, state.token_mask)
                               : ops::attention(packed, heads(), key_bias, state);
  return ops::linear(pass_channels(mixed, value_, state), *proj, state,
                     ops::BiasGradient::Consumer);
}

ops::AttentionHeads Attention::heads() const {
  return {.count = value_.heads,
          .query_width = query_key_.width,
          .value_width = value_.width,
          .scale_width = query_key_.born_width};
}

/// Queries, keys and values of the tokens; queries behind their gate.
at::Tensor Attention::packed_operands(const at::Tensor& tokens, ForwardState& state) const {
  // Where somebody else than the fused attention sends gradients back to qkv.
  const bool plain = channel_gate(query_key_, state).defined() || state.token_mask.defined() ||
                     state.want_class_attention;
  const at::Tensor packed =
      ops::linear(tokens, *qkv, state,
                  plain ? ops::BiasGradient::Linear
                        : ops::attention_bias_gradient(tokens.size(1), heads(), state));
  return gate_packed_queries(packed, query_key_, state);
}

/// What an observer of the pass is to know.
void Attention::show(const at::Tensor& packed, ForwardState& state) const {
  const std::int64_t queries = query_key_.channels();
  observe_channels(packed.narrow(2, 0, queries), query_key_, ChannelOperand::Query, state);
  observe_channels(packed.narrow(2, queries, queries), query_key_, ChannelOperand::Key, state);
  // Per channel: rows of projections, and its part of the products of all pairs of tokens.
  const auto rows = static_cast<double>(packed.size(0) * packed.size(1));
  const auto tokens = static_cast<double>(packed.size(1));
  const auto in = static_cast<double>(qkv->weight.size(1));
  const auto out = static_cast<double>(proj->weight.size(0));
  spend_on_channels(query_key_, rows * (2 * in + tokens), state);
  spend_on_channels(value_, rows * (in + out + tokens), state);
}

std::vector<at::Tensor> Attention::writers(const ChannelGroup& group) const {
  return packed_writers(*qkv, query_key_, value_, group);
}

at::Tensor Attention::reader(const ChannelGroup& group) const {
  return group.role == ChannelRole::Value ? proj->weight : at::Tensor();
}

void Attention::keep_channels(ChannelGroup& group, const std::vector<std::int64_t>& kept,
                              ParameterSlicer& slicer) {
  slice_packed_rows(*qkv, query_key_, value_, group, kept, slicer);
  if (group.role == ChannelRole::Value) slicer.slice(proj->weight, 1, kept);
  group.width = static_cast<std::int64_t>(kept.size()) / group.heads;
}

}  // namespace ablate
