#include "methods/channel_bottleneck.h"
#include "methods/layer_method.h"
#include "methods/models/layer_maps.h"

namespace ablate::methods::se {
namespace {

/// Squeeze and excitation (Hu et al., CVPR 2018): y sigmoid(W2 relu(W1 GAP y)), children fc1, fc2.
class SqueezeExcitation final : public ChannelBottleneck {
 public:
  using ChannelBottleneck::ChannelBottleneck;

  at::Tensor forward(const at::Tensor& y, const at::Tensor&, ForwardState&) override {
    return y * as_channel_factors(at::sigmoid(mlp(pool_channels(y))), y);
  }
};

void read(Params& params) { ChannelBottleneck::read_reduction(params); }

const Registry<LayerAttentionInfo>::Add added_module{
    {.name = "se", .make = [](Params& params, const std::vector<LayerPlace>& places) {
       return module_for_each<SqueezeExcitation>(places, ChannelBottleneck::read_reduction(params));
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
      return std::make_unique<LayerMethod>("se", params, read);
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
