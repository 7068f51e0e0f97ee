#pragma once

#include <memory>

#include "methods/models/layers.h"
#include "methods/models/slots.h"

namespace ablate {

/// Softmax attention of all tokens with keys and values of a smaller map (Wang et al., "Pyramid
/// Vision Transformer", ICCV 2021), and the authors' names: children q, kv, proj; with a reduction
/// above 1 also sr, a convolution whose kernel and stride it is, and norm. Channel groups: "qk" and
/// "v".
class SpatialReductionAttention final : public TokenMixer {
 public:
  SpatialReductionAttention(std::int64_t dim, std::int64_t num_heads, std::int64_t reduction);

  at::Tensor forward(const at::Tensor& tokens, ForwardState& state) override;
  /// Tokens have no keys of their own.
  bool provides_keys() const override { return false; }
  void scale_output(double factor) override { proj->scale(factor); }

  std::vector<ChannelGroup*> channel_groups() override { return {&query_key_, &value_}; }
  std::vector<at::Tensor> writers(const ChannelGroup& group) const override;
  at::Tensor reader(const ChannelGroup& group) const override;
  void keep_channels(ChannelGroup& group, const std::vector<std::int64_t>& kept,
                     ParameterSlicer& slicer) override;

  std::shared_ptr<Linear> q, kv, proj;
  std::shared_ptr<Conv2d> sr;       ///< null without reduction
  std::shared_ptr<LayerNorm> norm;  ///< likewise

 private:
  at::Tensor reduce(const at::Tensor& tokens, ForwardState& state) const;
  void show(const at::Tensor& queries, const at::Tensor& keys, ForwardState& state) const;

  ChannelGroup query_key_, value_;
};

}  // namespace ablate
