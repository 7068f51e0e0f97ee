#include <cmath>

#include "methods/layer_method.h"
#include "methods/models/layer_maps.h"
#include "methods/mrla.h"

namespace ablate::methods::eca {
namespace {

/// Efficient channel attention (Wang et al., CVPR 2020): y sigmoid(conv1d(GAP y)), parameter kernel
/// (1, 1, k).
class EfficientChannelAttention final : public LayerAttention {
 public:
  explicit EfficientChannelAttention(const LayerPlace& place)
      : kernel_(register_parameter("kernel", at::empty({1, 1, channel_kernel(place.channels)}))) {}

  at::Tensor forward(const at::Tensor& y, const at::Tensor&, ForwardState&) override {
    const at::Tensor logits = channel_convs(pool_channels(y), {kernel_}).front();
    return y * as_channel_factors(at::sigmoid(logits), y);
  }
  bool on_branch() const override { return true; }
  void initialize(std::uint64_t seed, const std::string& name) override {
    fill_uniform(kernel_, seed, name + ".kernel",
                 1.0 / std::sqrt(static_cast<double>(kernel_.size(2))));
  }

 private:
  at::Tensor kernel_;
};

const Registry<LayerAttentionInfo>::Add added_module{
    {.name = "eca", .make = [](Params&, const std::vector<LayerPlace>& places) {
       return module_for_each<EfficientChannelAttention>(places);
     }}};

const Registry<MethodInfo>::Add added{{
    .name = "eca",
    .summary = "efficient channel attention: a short convolution along the channels' means",
    .paper = "Wang et al., ECA-Net: Efficient Channel Attention, CVPR 2020",
    .semantics = 1,
    .phase = Phase::LayerAttention,
    .needs = {Slot::ChannelAttention},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction = "",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<LayerMethod>("eca", params, [](Params&) {});
    },
    .example =
        [] {
          return MethodExample{.model = "resnet20",
                               .params = "name = \"eca\"",
                               .model_params = "image_size = 8",
                               .idle_params = "name = \"eca\"\nstages = [3]"};
        },
}};

}  // namespace
}  // namespace ablate::methods::eca
