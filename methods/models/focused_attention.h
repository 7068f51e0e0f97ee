#pragma once

#include <memory>
#include <utility>

#include "methods/models/layers.h"
#include "methods/models/slots.h"
#include "methods/models/windows.h"

namespace ablate {

struct FocusedAttentionOptions {
  std::int64_t dim = 0;
  std::int64_t num_heads = 0;        ///< must divide dim
  std::int64_t map_side = 0;         ///< tokens are a square map after the prefix tokens
  std::int64_t prefix_tokens = 0;    ///< take part in attention, not in convolutions
  std::int64_t window = 0;           ///< side of windows; 0: the whole map
  std::int64_t shift = 0;            ///< of windows
  std::int64_t focusing_factor = 3;  ///< p; 1: the plain linear attention of relu features
  std::int64_t dwc_kernel = 5;       ///< 0: no depthwise convolution
  bool positional_encoding = true;
  bool local_encoding = false;  ///< a second depthwise convolution, 3 x 3 (CSwin's LePE)
};

/// The settings focusing_factor, dwc_kernel and positional_encoding.
void read_focus(Params& params, FocusedAttentionOptions& options);

/// Focused linear attention (Han et al., "FLatten Transformer: Vision Transformer using Focused
/// Linear Attention", ICCV 2023) with the authors' names: children qkv, proj, dwc (get_v for the
/// local encoding), parameters positional_encoding (1, tokens, dim) and scale (1, 1, dim):
///
///   o = f(q) (f(k + positional_encoding)^T v) / normaliser + dwc(v),  f: ops::focus
///
/// with focus in units of softplus(scale). dwc has one kernel for each channel of a head, which the
/// heads share until channels are cut. Shifted windows are not masked. Positions of a map of
/// another size are interpolated, a reconstruction. Channel groups: "qk", "v".
class FocusedLinearAttention final : public TokenMixer {
 public:
  explicit FocusedLinearAttention(const FocusedAttentionOptions& options);

  at::Tensor forward(const at::Tensor& tokens, ForwardState& state) override;
  /// There are no logits to which sizes of merged tokens could be added, and convolutions need the
  /// whole map.
  bool provides_keys() const override { return false; }
  void scale_output(double factor) override { proj->scale(factor); }

  std::vector<ChannelGroup*> channel_groups() override { return {&query_key_, &value_}; }
  std::vector<at::Tensor> writers(const ChannelGroup& group) const override;
  at::Tensor reader(const ChannelGroup& group) const override;
  void keep_channels(ChannelGroup& group, const std::vector<std::int64_t>& kept,
                     ParameterSlicer& slicer) override;

  std::shared_ptr<Linear> qkv, proj;
  std::shared_ptr<Conv2d> dwc;    ///< null without
  std::shared_ptr<Conv2d> get_v;  ///< null without
  at::Tensor positional_encoding, scale;

 private:
  at::Tensor attend(const at::Tensor& packed, const Windows& windows, ForwardState& state) const;
  at::Tensor positions(const Windows& windows) const;
  bool fusable(const Windows& windows, ForwardState& state) const;
  at::Tensor attend_fused(const at::Tensor& packed, const Windows& windows,
                          ForwardState& state) const;
  std::pair<at::Tensor, at::Tensor> joint_kernel() const;
  at::Tensor convolve(const at::Tensor& values, const at::Tensor& mixed, std::int64_t height) const;
  void spend(std::int64_t rows, ForwardState& state) const;
  void keep_convolutions(const std::vector<std::int64_t>& kept, ParameterSlicer& slicer);

  std::int64_t prefix_tokens_, focusing_factor_;
  AnyWindows windows_;
  ChannelGroup query_key_, value_;
};

}  // namespace ablate
