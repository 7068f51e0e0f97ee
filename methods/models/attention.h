#pragma once

#include <memory>

#include "methods/models/layers.h"
#include "methods/models/ops.h"
#include "methods/models/slots.h"

namespace ablate {

/// Multi-head softmax attention, children qkv and proj (rows of qkv: Q, K, V, each head-major):
///
///   softmax(Q K^T / sqrt(d) + log(size)) V
///
/// with d the born width of a head. Channel groups: "qk" and "v".
///
/// The log-size bias of the keys is added only in proportional attention (Bolya et al., ICLR 2023),
/// and not before the first merge: until then the result is that of plain attention bit for bit.
class Attention final : public TokenMixer {
 public:
  /// num_heads must divide dim.
  Attention(std::int64_t dim, std::int64_t num_heads);

  at::Tensor forward(const at::Tensor& tokens, ForwardState& state) override;
  bool provides_keys() const override { return true; }
  bool provides_class_attention() const override { return true; }
  bool masks() const override { return true; }
  void scale_output(double factor) override { proj->scale(factor); }

  std::vector<ChannelGroup*> channel_groups() override { return {&query_key_, &value_}; }
  std::vector<at::Tensor> writers(const ChannelGroup& group) const override;
  at::Tensor reader(const ChannelGroup& group) const override;
  void keep_channels(ChannelGroup& group, const std::vector<std::int64_t>& kept,
                     ParameterSlicer& slicer) override;

  std::shared_ptr<Linear> qkv, proj;

 private:
  ops::AttentionHeads heads() const;
  at::Tensor packed_operands(const at::Tensor& tokens, ForwardState& state) const;
  void show(const at::Tensor& packed, ForwardState& state) const;

  ChannelGroup query_key_, value_;
};

}  // namespace ablate
