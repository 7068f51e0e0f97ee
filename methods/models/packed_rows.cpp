#include "methods/models/packed_rows.h"

namespace ablate {

std::vector<at::Tensor> packed_writers(const Linear& qkv, const ChannelGroup& query_key,
                                       const ChannelGroup& value, const ChannelGroup& group) {
  const std::int64_t queries = query_key.channels();
  if (&group == &value) return {qkv.weight.narrow(0, 2 * queries, value.channels())};
  return {qkv.weight.narrow(0, 0, queries), qkv.weight.narrow(0, queries, queries)};
}

at::Tensor gate_packed_queries(const at::Tensor& packed, const ChannelGroup& query_key,
                               ForwardState& state) {
  const at::Tensor gate = channel_gate(query_key, state);
  if (!gate.defined()) return packed;
  const at::Tensor open = at::ones({packed.size(2) - gate.size(0)}, gate.options());
  return packed * at::cat({gate, open}).to(packed.scalar_type());
}

void slice_packed_rows(Linear& qkv, const ChannelGroup& query_key, const ChannelGroup& value,
                       const ChannelGroup& group, const std::vector<std::int64_t>& kept,
                       ParameterSlicer& slicer) {
  std::vector<std::int64_t> rows;
  std::int64_t offset = 0;
  for (const ChannelGroup* part : {&query_key, &query_key, &value}) {
    if (part == &group) {
      for (const std::int64_t channel : kept) rows.push_back(offset + channel);
    } else {
      for (std::int64_t i = 0; i < part->channels(); ++i) rows.push_back(offset + i);
    }
    offset += part->channels();
  }
  slicer.slice(qkv.weight, 0, rows);
  slicer.slice(qkv.bias, 0, rows);
}

}  // namespace ablate
