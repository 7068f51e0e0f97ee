#include "methods/models/focused_attention.h"

#include <algorithm>

#include "methods/models/backbone.h"
#include "methods/models/ops_grid.h"
#include "methods/models/packed_rows.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {
namespace {

std::shared_ptr<Conv2d> depthwise(std::int64_t channels, std::int64_t kernel) {
  return std::make_shared<Conv2d>(channels, channels, kernel, 1, kernel / 2, true, channels);
}

AnyWindows windows_of(const FocusedAttentionOptions& options) {
  return {{options.map_side, options.map_side}, {options.window, options.window}, options.shift};
}

}  // namespace

void read_focus(Params& params, FocusedAttentionOptions& options) {
  options.focusing_factor =
      params.integer("focusing_factor", options.focusing_factor, 1, 64,
                     "power of the focusing map; 1: plain linear attention of relu features");
  options.dwc_kernel = params.integer("dwc_kernel", options.dwc_kernel, 0, 15,
                                      "side of the depthwise convolution of values; 0: none");
  options.positional_encoding =
      params.boolean("positional_encoding", options.positional_encoding,
                     "learnt positions are added to the keys of linear attention");
  if (options.dwc_kernel != 0 && options.dwc_kernel % 2 == 0) {
    params.fail("dwc_kernel",
                cat(options.dwc_kernel, " is even; odd sides keep the size of a map"));
  }
}

FocusedLinearAttention::FocusedLinearAttention(const FocusedAttentionOptions& o)
    : qkv(register_module("qkv", std::make_shared<Linear>(o.dim, 3 * o.dim))),
      proj(register_module("proj", std::make_shared<Linear>(o.dim, o.dim))),
      scale(register_parameter("scale", at::empty({1, 1, o.dim}))),
      prefix_tokens_(o.prefix_tokens),
      focusing_factor_(o.focusing_factor),
      windows_(windows_of(o)) {
  ABLATE_CHECK(o.num_heads > 0 && o.dim % o.num_heads == 0, o.dim, " channels, ", o.num_heads,
               " heads");
  ABLATE_CHECK(o.prefix_tokens == 0 || windows_.born().count() == 1, "prefix tokens in windows");
  const std::int64_t width = o.dim / o.num_heads;
  query_key_ = {"qk", ChannelRole::QueryKey, o.num_heads, width, width, true};
  value_ = {"v", ChannelRole::Value, o.num_heads, width, width, true};
  if (o.positional_encoding) {
    positional_encoding = register_parameter(
        "positional_encoding", at::empty({1, o.prefix_tokens + windows_.born().area(), o.dim}));
  }
  if (o.dwc_kernel > 0) dwc = register_module("dwc", depthwise(width, o.dwc_kernel));
  if (o.local_encoding) get_v = register_module("get_v", depthwise(o.dim, 3));
}

at::Tensor FocusedLinearAttention::forward(const at::Tensor& tokens, ForwardState& state) {
  Windows& windows = windows_.of(tokens.size(1) - prefix_tokens_, state.map_height);
  const bool whole = windows.whole();
  const at::Tensor packed = ops::linear(whole ? tokens : windows.cut(tokens), *qkv, state);
  spend(packed.size(0) * packed.size(1), state);
  const at::Tensor passed = pass_channels(attend(packed, windows, state), value_, state);
  return ops::linear(whole ? passed : windows.join(passed), *proj, state,
                     ops::BiasGradient::Consumer);
}

/// Nobody looks at the operands or changes them, and the kernels know their sizes.
bool FocusedLinearAttention::fusable(const Windows& windows, ForwardState& state) const {
  std::int64_t side = 0;
  for (const auto* conv : {dwc.get(), get_v.get()}) {
    if (conv) side = std::max(side, conv->weight.size(2));
  }
  return focusing_factor_ == 3 && windows.height() == windows.width() && !query_key_.cut() &&
         !value_.cut() && ops::focused_attention_fusable(query_key_.width, side, state) &&
         !channel_gate(query_key_, state).defined() && !state.channel_observer;
}

/// Added to the keys of a window; undefined: nothing.
at::Tensor FocusedLinearAttention::positions(const Windows& windows) const {
  if (!positional_encoding.defined()) return {};
  return positions_of_map(positional_encoding, prefix_tokens_, windows.height(), windows.width());
}

at::Tensor FocusedLinearAttention::attend_fused(const at::Tensor& packed, const Windows& windows,
                                                ForwardState& state) const {
  const auto [kernel, bias] = joint_kernel();
  return ops::focused_attention(packed,
                                {.heads = value_.heads,
                                 .prefix_tokens = prefix_tokens_,
                                 .position = positions(windows),
                                 .unit = at::softplus(scale),
                                 .kernel = kernel,
                                 .bias = bias},
                                state);
}

/// One convolution in place of two: the smaller kernel lies in the middle of the larger one, and
/// heads no longer share theirs.
std::pair<at::Tensor, at::Tensor> FocusedLinearAttention::joint_kernel() const {
  if (!get_v) return dwc ? std::pair(dwc->weight, dwc->bias) : std::pair<at::Tensor, at::Tensor>();
  if (!dwc) return {get_v->weight, get_v->bias};
  const std::int64_t shared = get_v->weight.size(0) / dwc->weight.size(0);
  const auto padded = [](const at::Tensor& kernel, std::int64_t side) {
    const std::int64_t margin = std::max<std::int64_t>(side - kernel.size(2), 0) / 2;
    return at::constant_pad_nd(kernel, {margin, margin, margin, margin});
  };
  const at::Tensor own = dwc->weight.repeat({shared, 1, 1, 1});
  return {padded(own, get_v->weight.size(2)) + padded(get_v->weight, own.size(2)),
          dwc->bias.repeat({shared}) + get_v->bias};
}

at::Tensor FocusedLinearAttention::attend(const at::Tensor& packed, const Windows& windows,
                                          ForwardState& state) const {
  if (fusable(windows, state)) return attend_fused(packed, windows, state);
  const std::int64_t queries = query_key_.channels();
  const auto parts = packed.split_with_sizes({queries, queries, value_.channels()}, 2);
  const at::Tensor unit = at::softplus(scale), gate = channel_gate(query_key_, state);
  const at::Tensor place = positions(windows);
  const at::Tensor placed = place.defined() ? parts[1] + ops::like(place, packed) : parts[1];
  const at::Tensor q = ops::focus(parts[0], unit, gate, focusing_factor_);
  const at::Tensor k = ops::focus(placed, unit, gate, focusing_factor_);
  observe_channels(q, query_key_, ChannelOperand::Query, state);
  observe_channels(k, query_key_, ChannelOperand::Key, state);
  return convolve(parts[2], ops::linear_attention(q, k, parts[2], value_.heads), windows.height());
}

/// Adds the convolutions of the values to what attention has mixed.
at::Tensor FocusedLinearAttention::convolve(const at::Tensor& values, const at::Tensor& mixed,
                                            std::int64_t height) const {
  at::Tensor sum = mixed;
  const at::Tensor map = values.slice(1, prefix_tokens_);
  for (const auto* conv : {dwc.get(), get_v.get()}) {
    if (!conv) continue;
    const at::Tensor local = ops::depthwise_conv(map, *conv, height);
    sum =
        sum + (prefix_tokens_ > 0 ? at::constant_pad_nd(local, {0, 0, prefix_tokens_, 0}) : local);
  }
  return sum;
}

void FocusedLinearAttention::spend(std::int64_t rows, ForwardState& state) const {
  const auto all = static_cast<double>(rows);
  const auto width = static_cast<double>(qkv->weight.size(1));
  const double places = all * static_cast<double>(windows_.born().area()) /
                        static_cast<double>(windows_.born().area() + prefix_tokens_);
  double kernels = 0.0;
  for (const auto* conv : {dwc.get(), get_v.get()}) {
    if (conv) kernels += static_cast<double>(conv->weight[0].numel());
  }
  // Two projections and the normaliser; the projections before and behind, and the convolutions.
  spend_on_channels(query_key_, all * (2.0 * width + 1.0), state);
  spend_on_channels(value_, all * 2.0 * width + places * kernels, state);
  // k^T v and its product with q: every channel of a head with every other of the same.
  spend_on_channels(query_key_, 2.0 * all / static_cast<double>(value_.heads), state, &value_);
}

std::vector<at::Tensor> FocusedLinearAttention::writers(const ChannelGroup& group) const {
  return packed_writers(*qkv, query_key_, value_, group);
}

at::Tensor FocusedLinearAttention::reader(const ChannelGroup& group) const {
  return group.role == ChannelRole::Value ? proj->weight : at::Tensor();
}

void FocusedLinearAttention::keep_channels(ChannelGroup& group,
                                           const std::vector<std::int64_t>& kept,
                                           ParameterSlicer& slicer) {
  slice_packed_rows(*qkv, query_key_, value_, group, kept, slicer);
  if (group.role == ChannelRole::QueryKey) {
    slicer.slice(scale, 2, kept);
    if (positional_encoding.defined()) slicer.slice(positional_encoding, 2, kept);
  } else {
    slicer.slice(proj->weight, 1, kept);
    keep_convolutions(kept, slicer);
  }
  group.width = static_cast<std::int64_t>(kept.size()) / group.heads;
}

void FocusedLinearAttention::keep_convolutions(const std::vector<std::int64_t>& kept,
                                               ParameterSlicer& slicer) {
  for (Conv2d* conv : {dwc.get(), get_v.get()}) {
    if (!conv) continue;
    // Heads that keep different channels need a kernel for each of theirs.
    std::vector<std::int64_t> kernels;
    for (const std::int64_t channel : kept) kernels.push_back(channel % conv->weight.size(0));
    slicer.slice(conv->weight, 0, kernels);
    slicer.slice(conv->bias, 0, kernels);
  }
}

}  // namespace ablate
