#pragma once

#include <memory>

#include "methods/models/layers.h"
#include "methods/models/slots.h"
#include "methods/models/windows.h"

namespace ablate {

struct WindowAttentionOptions {
  std::int64_t dim = 0;
  std::int64_t num_heads = 0;  ///< must divide dim
  std::int64_t map_side = 0;   ///< tokens are a square map
  std::int64_t window = 0;     ///< side of windows
  std::int64_t shift = 0;      ///< of windows
};

/// Softmax attention in windows, shifted or not (Liu et al., "Swin Transformer", ICCV 2021), with a
/// learnt bias for each relative position of two tokens, and timm's names: children qkv, proj,
/// parameter relative_position_bias_table ((2 w - 1)^2, heads). Channel groups: "qk" and "v".
class WindowAttention final : public TokenMixer {
 public:
  explicit WindowAttention(const WindowAttentionOptions& options);

  at::Tensor forward(const at::Tensor& tokens, ForwardState& state) override;
  /// Windows need the whole map, so nothing could be merged by keys.
  bool provides_keys() const override { return false; }
  void scale_output(double factor) override { proj->scale(factor); }
  /// What is added to the logits of a window of a map of the born size: (1 or windows, heads, w^2,
  /// w^2).
  at::Tensor bias() { return bias(windows_.born()); }

  std::vector<ChannelGroup*> channel_groups() override { return {&query_key_, &value_}; }
  std::vector<at::Tensor> writers(const ChannelGroup& group) const override;
  at::Tensor reader(const ChannelGroup& group) const override;
  void keep_channels(ChannelGroup& group, const std::vector<std::int64_t>& kept,
                     ParameterSlicer& slicer) override;

  std::shared_ptr<Linear> qkv, proj;
  at::Tensor relative_position_bias_table;

 private:
  at::Tensor bias(Windows& windows) const;
  void show(const at::Tensor& packed, ForwardState& state) const;

  AnyWindows windows_;
  ChannelGroup query_key_, value_;
};

}  // namespace ablate
