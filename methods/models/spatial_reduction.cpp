#include "methods/models/spatial_reduction.h"

#include <cmath>
#include <numeric>

#include "methods/models/ops_grid.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr double kReductionNormEps = 1e-5;

at::Tensor split_heads(const at::Tensor& x, std::int64_t heads) {
  return x.unflatten(2, {heads, x.size(2) / heads}).transpose(1, 2);
}

}  // namespace

SpatialReductionAttention::SpatialReductionAttention(std::int64_t dim, std::int64_t num_heads,
                                                     std::int64_t reduction)
    : q(register_module("q", std::make_shared<Linear>(dim, dim))),
      kv(register_module("kv", std::make_shared<Linear>(dim, 2 * dim))),
      proj(register_module("proj", std::make_shared<Linear>(dim, dim))) {
  ABLATE_CHECK(num_heads > 0 && dim % num_heads == 0, dim, " channels, ", num_heads, " heads");
  const std::int64_t width = dim / num_heads;
  query_key_ = {"qk", ChannelRole::QueryKey, num_heads, width, width};
  value_ = {"v", ChannelRole::Value, num_heads, width, width};
  if (reduction == 1) return;
  sr = register_module("sr", std::make_shared<Conv2d>(dim, dim, reduction, reduction, 0, true));
  norm = register_module("norm", std::make_shared<LayerNorm>(dim, kReductionNormEps));
}

at::Tensor SpatialReductionAttention::reduce(const at::Tensor& tokens, ForwardState& state) const {
  if (!sr) return tokens;
  const at::Tensor patches = ops::patch_conv(ops::map_of(tokens, state.map_height), *sr);
  return ops::as_activation(norm->forward(ops::as_stream(patches, state)), state);
}

at::Tensor SpatialReductionAttention::forward(const at::Tensor& tokens, ForwardState& state) {
  const at::Tensor queries = gate_channels(ops::linear(tokens, *q, state), query_key_, state);
  const at::Tensor packed = ops::linear(reduce(tokens, state), *kv, state);
  const auto parts = packed.split_with_sizes({query_key_.channels(), value_.channels()}, 2);
  if (state.channel_observer) show(queries, parts[0], state);
  const double scale = 1.0 / std::sqrt(static_cast<double>(query_key_.born_width));
  const std::int64_t heads = value_.heads;
  const at::Tensor mixed = at::scaled_dot_product_attention(
      split_heads(queries, heads), split_heads(parts[0], heads), split_heads(parts[1], heads),
      std::nullopt, 0.0, false, scale);
  return ops::linear(pass_channels(mixed.transpose(1, 2).flatten(2), value_, state), *proj, state,
                     ops::BiasGradient::Consumer);
}

/// What an observer of the pass is to know.
void SpatialReductionAttention::show(const at::Tensor& queries, const at::Tensor& keys,
                                     ForwardState& state) const {
  observe_channels(queries, query_key_, ChannelOperand::Query, state);
  observe_channels(keys, query_key_, ChannelOperand::Key, state);
  const auto rows = static_cast<double>(queries.size(0) * queries.size(1)),
             key_rows = static_cast<double>(keys.size(0) * keys.size(1)),
             dim = static_cast<double>(q->weight.size(1));
  // A projection of the tokens, one of the keys, and the product of both.
  const double macs = (rows + key_rows) * dim + rows * static_cast<double>(keys.size(1));
  spend_on_channels(query_key_, macs, state);
  spend_on_channels(value_, macs, state);
}

std::vector<at::Tensor> SpatialReductionAttention::writers(const ChannelGroup& group) const {
  const std::int64_t keys = query_key_.channels();
  if (&group == &value_) return {kv->weight.narrow(0, keys, value_.channels())};
  return {q->weight, kv->weight.narrow(0, 0, keys)};
}

at::Tensor SpatialReductionAttention::reader(const ChannelGroup& group) const {
  return group.role == ChannelRole::Value ? proj->weight : at::Tensor();
}

void SpatialReductionAttention::keep_channels(ChannelGroup& group,
                                              const std::vector<std::int64_t>& kept,
                                              ParameterSlicer& slicer) {
  const std::int64_t keys = query_key_.channels();
  std::vector<std::int64_t> rows;
  if (&group == &query_key_) {
    slicer.slice(q->weight, 0, kept);
    slicer.slice(q->bias, 0, kept);
    rows = kept;
    for (std::int64_t i = 0; i < value_.channels(); ++i) rows.push_back(keys + i);
  } else {
    rows.resize(static_cast<std::size_t>(keys));
    std::iota(rows.begin(), rows.end(), 0);
    for (const std::int64_t channel : kept) rows.push_back(keys + channel);
    slicer.slice(proj->weight, 1, kept);
  }
  slicer.slice(kv->weight, 0, rows);
  slicer.slice(kv->bias, 0, rows);
  group.width = static_cast<std::int64_t>(kept.size()) / group.heads;
}

}  // namespace ablate
