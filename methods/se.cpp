#include "methods/layer_cell.h"
#include "methods/layer_method.h"
#include "methods/models/layer_maps.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate::methods::se {
namespace {

/// Squeeze and excitation (Hu et al., CVPR 2018): y sigmoid(W2 relu(W1 GAP y)), children fc1, fc2.
class SqueezeExcitation final : public LayerAttention {
 public:
  SqueezeExcitation(const LayerPlace& place, std::int64_t reduction) {
    const std::int64_t narrow = place.channels / reduction;
    if (narrow == 0) {
      throw SpecError(cat("reduction = ", reduction, " leaves nothing of the ", place.channels,
                          " channels of ", place.name));
    }
    fc1_ = register_module("fc1", std::make_shared<Linear>(place.channels, narrow));
    fc2_ = register_module("fc2", std::make_shared<Linear>(narrow, place.channels));
  }

  at::Tensor forward(const at::Tensor& y, const at::Tensor&, ForwardState&) override {
    const at::Tensor hidden = at::relu(fc1_->forward(pool_channels(y)));
    return y * as_channel_factors(at::sigmoid(fc2_->forward(hidden)), y);
  }
  bool on_branch() const override { return true; }
  void initialize(std::uint64_t seed, const std::string& name) override {
    fill_linear(*fc1_, seed, name + ".fc1");
    fill_linear(*fc2_, seed, name + ".fc2");
  }

 private:
  std::shared_ptr<Linear> fc1_, fc2_;
};

std::int64_t read_reduction(Params& params) {
  return params.integer("reduction", 16, 1, 1 << 20, "channels over those of the hidden layer");
}

const Registry<LayerAttentionInfo>::Add added_module{
    {.name = "se", .make = [](Params& params, const std::vector<LayerPlace>& places) {
       const std::int64_t reduction = read_reduction(params);
       std::vector<std::shared_ptr<LayerAttention>> modules;
       for (const LayerPlace& place : places) {
         modules.push_back(std::make_shared<SqueezeExcitation>(place, reduction));
       }
       return modules;
     }}};

const Registry<MethodInfo>::Add added{{
    .name = "se",
    .summary =
        "squeeze and excitation: channels of a branch are scaled by a function of their means",
    .paper = "Hu et al., Squeeze-and-Excitation Networks, CVPR 2018",
    .semantics = 1,
    .phase = Phase::LayerAttention,
    .needs = {Slot::ChannelAttention},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction = "",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<LayerMethod>("se", params, [](Params& p) { read_reduction(p); });
    },
    .example =
        [] {
          return MethodExample{.model = "resnet20",
                               .params = "name = \"se\"",
                               .model_params = "image_size = 8",
                               .idle_params = "name = \"se\"\nstages = [3]"};
        },
}};

}  // namespace
}  // namespace ablate::methods::se
