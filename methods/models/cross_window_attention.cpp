#include "methods/models/cross_window_attention.h"

#include <algorithm>

#include "methods/models/ops_grid.h"
#include "methods/models/packed_rows.h"
#include "runner/core/error.h"
#include "runner/core/text.h"

namespace ablate {

CrossWindowAttention::CrossWindowAttention(std::int64_t dim, std::int64_t num_heads,
                                           std::int64_t map_side, std::int64_t stripe)
    : qkv(register_module("qkv", std::make_shared<Linear>(dim, 3 * dim))),
      proj(register_module("proj", std::make_shared<Linear>(dim, dim))) {
  ABLATE_CHECK(num_heads > 0 && dim % num_heads == 0, dim, " channels, ", num_heads, " heads");
  const MapSize map{map_side, map_side};
  if (stripe == map_side) {
    add_branch({map, {0, 0}}, dim, num_heads, "");
  } else {
    ABLATE_CHECK(num_heads % 2 == 0, num_heads, " heads in two halves");
    add_branch({map, {0, stripe}}, dim / 2, num_heads / 2, "0");
    add_branch({map, {stripe, 0}}, dim / 2, num_heads / 2, "1");
  }
}

void CrossWindowAttention::add_branch(AnyWindows stripes, std::int64_t dim, std::int64_t heads,
                                      const std::string& suffix) {
  const std::int64_t width = dim / heads;
  branches_.push_back(
      {.stripes = std::move(stripes),
       .get_v = register_module("get_v" + suffix,
                                std::make_shared<Conv2d>(dim, dim, 3, 1, 1, true, dim)),
       .query_key = {"qk" + suffix, ChannelRole::QueryKey, heads, width, width},
       .value = {"v" + suffix, ChannelRole::Value, heads, width, width}});
}

at::Tensor CrossWindowAttention::forward(const at::Tensor& tokens, ForwardState& state) {
  std::vector<at::Tensor> operands = split(ops::linear(tokens, *qkv, state)), mixed;
  for (std::size_t i = 0; i < branches_.size(); ++i) {
    Branch& branch = branches_[i];
    Windows& stripes = branch.stripes.of(tokens.size(1), state.map_height);
    const at::Tensor packed =
        gate_packed_queries(stripes.cut(operands[i]).flatten(2), branch.query_key, state);
    if (state.channel_observer) branch.show(packed, tokens.size(2), state);
    mixed.push_back(stripes.join(branch.attend(packed, stripes.height(), state)));
  }
  return ops::linear(mixed.size() == 1 ? mixed[0] : at::cat(mixed, 2), *proj, state,
                     ops::BiasGradient::Consumer);
}

/// Queries, keys and values of each branch, (B, N, 3, channels), or (B, N, rows) where their
/// numbers differ.
std::vector<at::Tensor> CrossWindowAttention::split(const at::Tensor& packed) const {
  const auto count = static_cast<std::int64_t>(branches_.size());
  const auto cut = [](const Branch& b) { return b.query_key.cut() || b.value.cut(); };
  if (std::ranges::none_of(branches_, cut)) return packed.unflatten(2, {3, count, -1}).unbind(3);
  std::vector<std::int64_t> sizes;
  for (const Range& range : rows()) sizes.push_back(range.group->channels());
  const auto parts = packed.split_with_sizes(sizes, 2);
  std::vector<at::Tensor> operands;
  for (std::size_t i = 0; i < branches_.size(); ++i) {
    const std::size_t n = branches_.size();
    operands.push_back(at::cat({parts[i], parts[n + i], parts[2 * n + i]}, 2));
  }
  return operands;
}

ops::AttentionHeads CrossWindowAttention::Branch::heads() const {
  return {.count = value.heads,
          .query_width = query_key.width,
          .value_width = value.width,
          .scale_width = query_key.born_width};
}

at::Tensor CrossWindowAttention::Branch::attend(const at::Tensor& packed, std::int64_t height,
                                                ForwardState& state) {
  const at::Tensor values = packed.narrow(2, 2 * query_key.channels(), value.channels());
  const at::Tensor local = ops::depthwise_conv(values, *get_v, height);
  return pass_channels(ops::attention(packed, heads(), {}, state) + local, value, state);
}

/// What an observer of the pass is to know.
void CrossWindowAttention::Branch::show(const at::Tensor& packed, std::int64_t dim,
                                        ForwardState& state) const {
  const std::int64_t queries = query_key.channels();
  observe_channels(packed.narrow(2, 0, queries), query_key, ChannelOperand::Query, state);
  observe_channels(packed.narrow(2, queries, queries), query_key, ChannelOperand::Key, state);
  const auto rows = static_cast<double>(packed.size(0) * packed.size(1));
  // Two projections, and the product with each token of the stripe.
  const double macs = rows * static_cast<double>(2 * dim + stripes.born().area());
  spend_on_channels(query_key, macs, state);
  spend_on_channels(value, macs + rows * static_cast<double>(get_v->weight[0].numel()), state);
}

std::vector<ChannelGroup*> CrossWindowAttention::channel_groups() {
  std::vector<ChannelGroup*> groups;
  for (Branch& branch : branches_) {
    groups.push_back(&branch.query_key);
    groups.push_back(&branch.value);
  }
  return groups;
}

/// Queries of all branches, their keys, their values.
std::vector<CrossWindowAttention::Range> CrossWindowAttention::rows() const {
  return ranges_of({&Branch::query_key, &Branch::query_key, &Branch::value});
}

std::vector<CrossWindowAttention::Range> CrossWindowAttention::ranges_of(
    std::initializer_list<ChannelGroup Branch::*> parts) const {
  std::vector<Range> ranges;
  std::int64_t offset = 0;
  for (const auto part : parts) {
    for (const Branch& branch : branches_) {
      ranges.push_back({&(branch.*part), offset});
      offset += ranges.back().group->channels();
    }
  }
  return ranges;
}

/// What is left of all ranges when a group keeps these channels.
std::vector<std::int64_t> CrossWindowAttention::left_of(const std::vector<Range>& ranges,
                                                        const ChannelGroup& group,
                                                        const std::vector<std::int64_t>& kept) {
  std::vector<std::int64_t> left;
  for (const Range& range : ranges) {
    for (std::int64_t i = 0; i < range.group->channels(); ++i) {
      const bool stays = range.group != &group || std::ranges::binary_search(kept, i);
      if (stays) left.push_back(range.offset + i);
    }
  }
  return left;
}

std::vector<at::Tensor> CrossWindowAttention::writers(const ChannelGroup& group) const {
  std::vector<at::Tensor> writers;
  for (const Range& range : rows()) {
    if (range.group != &group) continue;
    writers.push_back(qkv->weight.narrow(0, range.offset, group.channels()));
  }
  return writers;
}

at::Tensor CrossWindowAttention::reader(const ChannelGroup& group) const {
  for (const Range& range : columns()) {
    if (range.group == &group) return proj->weight.narrow(1, range.offset, group.channels());
  }
  return {};
}

void CrossWindowAttention::keep_channels(ChannelGroup& group, const std::vector<std::int64_t>& kept,
                                         ParameterSlicer& slicer) {
  const std::vector<std::int64_t> left = left_of(rows(), group, kept);
  slicer.slice(qkv->weight, 0, left);
  slicer.slice(qkv->bias, 0, left);
  if (group.role == ChannelRole::Value) {
    slicer.slice(proj->weight, 1, left_of(columns(), group, kept));
    for (const Branch& branch : branches_) {
      if (&branch.value != &group) continue;
      slicer.slice(branch.get_v->weight, 0, kept);
      slicer.slice(branch.get_v->bias, 0, kept);
    }
  }
  group.width = static_cast<std::int64_t>(kept.size()) / group.heads;
}

}  // namespace ablate
