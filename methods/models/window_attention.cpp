#include "methods/models/window_attention.h"

#include "methods/models/ops_grid.h"
#include "methods/models/packed_rows.h"
#include "runner/core/error.h"

namespace ablate {

WindowAttention::WindowAttention(const WindowAttentionOptions& o)
    : qkv(register_module("qkv", std::make_shared<Linear>(o.dim, 3 * o.dim))),
      proj(register_module("proj", std::make_shared<Linear>(o.dim, o.dim))),
      relative_position_bias_table(
          register_parameter("relative_position_bias_table",
                             at::empty({(2 * o.window - 1) * (2 * o.window - 1), o.num_heads}))),
      windows_({o.map_side, o.map_side}, {o.window, o.window}, o.shift) {
  ABLATE_CHECK(o.num_heads > 0 && o.dim % o.num_heads == 0, o.dim, " channels, ", o.num_heads,
               " heads");
  const std::int64_t width = o.dim / o.num_heads;
  query_key_ = {"qk", ChannelRole::QueryKey, o.num_heads, width, width};
  value_ = {"v", ChannelRole::Value, o.num_heads, width, width};
}

at::Tensor WindowAttention::bias(Windows& windows) const {
  const std::int64_t side = windows.height(), area = windows.area(), heads = value_.heads;
  // Row y - y' + side - 1 and column x - x' + side - 1 of the table, as views of it: a gather would
  // add gradients up in any order.
  const at::Tensor table = relative_position_bias_table.view({2 * side - 1, 2 * side - 1, heads});
  const at::Tensor places = table.unfold(0, side, 1).unfold(1, side, 1).flip({3, 4});
  const at::Tensor relative = places.permute({2, 0, 1, 3, 4}).reshape({1, heads, area, area});
  const at::Tensor mask = windows.mask(relative.options());
  return mask.defined() ? relative + mask.unsqueeze(1) : relative;
}

at::Tensor WindowAttention::forward(const at::Tensor& tokens, ForwardState& state) {
  Windows& windows = windows_.of(tokens.size(1), state.map_height);
  const at::Tensor packed =
      gate_packed_queries(ops::linear(windows.cut(tokens), *qkv, state), query_key_, state);
  if (state.channel_observer) show(packed, state);
  const ops::AttentionHeads heads{.count = value_.heads,
                                  .query_width = query_key_.width,
                                  .value_width = value_.width,
                                  .scale_width = query_key_.born_width};
  const at::Tensor mixed = ops::window_attention(packed, heads, bias(windows));
  return ops::linear(windows.join(pass_channels(mixed, value_, state)), *proj, state,
                     ops::BiasGradient::Consumer);
}

/// What an observer of the pass is to know.
void WindowAttention::show(const at::Tensor& packed, ForwardState& state) const {
  const std::int64_t queries = query_key_.channels();
  observe_channels(packed.narrow(2, 0, queries), query_key_, ChannelOperand::Query, state);
  observe_channels(packed.narrow(2, queries, queries), query_key_, ChannelOperand::Key, state);
  // Two projections, and the product with each token of the window.
  const double macs = static_cast<double>(packed.size(0) * packed.size(1)) *
                      static_cast<double>(2 * qkv->weight.size(1) + windows_.born().area());
  spend_on_channels(query_key_, macs, state);
  spend_on_channels(value_, macs, state);
}

std::vector<at::Tensor> WindowAttention::writers(const ChannelGroup& group) const {
  return packed_writers(*qkv, query_key_, value_, group);
}

at::Tensor WindowAttention::reader(const ChannelGroup& group) const {
  return group.role == ChannelRole::Value ? proj->weight : at::Tensor();
}

void WindowAttention::keep_channels(ChannelGroup& group, const std::vector<std::int64_t>& kept,
                                    ParameterSlicer& slicer) {
  slice_packed_rows(*qkv, query_key_, value_, group, kept, slicer);
  if (group.role == ChannelRole::Value) slicer.slice(proj->weight, 1, kept);
  group.width = static_cast<std::int64_t>(kept.size()) / group.heads;
}

}  // namespace ablate
