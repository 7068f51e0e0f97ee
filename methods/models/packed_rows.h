#pragma once

#include <vector>

#include "methods/models/channels.h"
#include "methods/models/layers.h"

namespace ablate {

// The Linear `qkv` of an attention, whose rows write queries, keys and values one after the other:
// `query_key.channels()` of the first, as many of the second, `value.channels()` of the third.

/// ChannelOwner::writers() of one of the two groups.
std::vector<at::Tensor> packed_writers(const Linear& qkv, const ChannelGroup& query_key,
                                       const ChannelGroup& value, const ChannelGroup& group);

/// Rows of such a Linear, (B, N, ..), with the queries behind their gate.
at::Tensor gate_packed_queries(const at::Tensor& packed, const ChannelGroup& query_key,
                               ForwardState& state);

/// Keeps the rows of these channels of one of the two groups, whose widths are the old ones yet.
void slice_packed_rows(Linear& qkv, const ChannelGroup& query_key, const ChannelGroup& value,
                       const ChannelGroup& group, const std::vector<std::int64_t>& kept,
                       ParameterSlicer& slicer);

}  // namespace ablate
