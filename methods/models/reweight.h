#pragma once

#include <string>

#include "methods/models/channels.h"
#include "methods/models/layers.h"

namespace ablate {

/// Makes up for removed channels of an attention: multiplies what is left of its output, before the
/// projection (Lee and Hwang, arXiv 2405.20867; the form is ours). Starts as the identity, bit for
/// bit.
class Reweight : public torch::nn::Module {
 public:
  /// x (B, N, channels).
  virtual at::Tensor forward(const at::Tensor& x, const ChannelGroup& group,
                             ForwardState& state) = 0;
  /// Follows a cut of its group, which has the old width yet.
  virtual void keep_channels(const ChannelGroup& group, const std::vector<std::int64_t>& kept,
                             ParameterSlicer& slicer) = 0;
  /// The constant factor of each channel; undefined when it depends on the input.
  virtual at::Tensor constant_factor(const ChannelGroup& group) const = 0;
};

/// Kinds: "dynamic", o * 2 sigmoid(W2 relu(W1 mean_tokens(o))) with `hidden` units between, which
/// starts with W2 = 0; "static", one factor a channel; "head", one a head. Parameters but W1 are
/// set. Throws Error on another kind.
std::shared_ptr<Reweight> make_reweight(const std::string& kind, const ChannelGroup& group,
                                        std::int64_t hidden);

}  // namespace ablate
