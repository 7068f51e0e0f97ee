#pragma once

#include <memory>
#include <string>

#include "methods/models/layer_attention.h"
#include "methods/models/layers.h"

namespace ablate {

class Params;

/// Channel attention with a bottleneck Linear - ReLU - Linear, C -> C / r -> C, children fc1, fc2.
class ChannelBottleneck : public LayerAttention {
 public:
  /// Throws SpecError when the reduction leaves no channel.
  ChannelBottleneck(const LayerPlace& place, std::int64_t reduction);

  /// The setting `reduction`: r.
  static std::int64_t read_reduction(Params& params);

  bool on_branch() const override { return true; }
  void initialize(std::uint64_t seed, const std::string& name) override;

 protected:
  at::Tensor mlp(const at::Tensor& pooled) const;  ///< (B, C) -> (B, C)

 private:
  std::shared_ptr<Linear> fc1_, fc2_;
};

}  // namespace ablate
