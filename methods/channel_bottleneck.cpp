#include "methods/channel_bottleneck.h"

#include "methods/layer_cell.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {

ChannelBottleneck::ChannelBottleneck(const LayerPlace& place, std::int64_t reduction) {
  const std::int64_t narrow = place.channels / reduction;
  if (narrow == 0) {
    throw SpecError(cat("reduction = ", reduction, " leaves nothing of the ", place.channels,
                        " channels of ", place.name));
  }
  fc1_ = register_module("fc1", std::make_shared<Linear>(place.channels, narrow));
  fc2_ = register_module("fc2", std::make_shared<Linear>(narrow, place.channels));
}

std::int64_t ChannelBottleneck::read_reduction(Params& params) {
  return params.integer("reduction", 16, 1, 1 << 20, "channels over those of the hidden layer");
}

void ChannelBottleneck::initialize(std::uint64_t seed, const std::string& name) {
  fill_linear(*fc1_, seed, name + ".fc1");
  fill_linear(*fc2_, seed, name + ".fc2");
}

at::Tensor ChannelBottleneck::mlp(const at::Tensor& pooled) const {
  return fc2_->forward(at::relu(fc1_->forward(pooled)));
}

}  // namespace ablate
