#include <cmath>

#include "methods/channel_bottleneck.h"
#include "methods/layer_method.h"
#include "methods/models/batch_norm.h"
#include "methods/models/layer_maps.h"
#include "methods/models/ops.h"

namespace ablate::methods::cbam {
namespace {

constexpr std::int64_t kSpatialKernel = 7;

/// Convolutional block attention (Woo et al., ECCV 2018). Channels first: sigmoid of the sum of one
/// MLP's answers to means and maxima over the pixels, children fc1, fc2. Then pixels: sigmoid of a
/// normalised 7x7 convolution of maxima and means over the channels, children spatial,
/// spatial_norm.
class ConvBlockAttention final : public ChannelBottleneck {
 public:
  ConvBlockAttention(const LayerPlace& place, std::int64_t reduction)
      : ChannelBottleneck(place, reduction) {
    spatial_ = register_module(
        "spatial", std::make_shared<Conv2d>(2, 1, kSpatialKernel, 1, kSpatialKernel / 2, false));
    norm_ = register_module("spatial_norm", std::make_shared<GroupBatchNorm2d>(1, place.bn_group));
  }

  at::Tensor forward(const at::Tensor& y, const at::Tensor&, ForwardState& state) override {
    const at::Tensor means = pool_channels(y);
    const at::Tensor maxima = y.amax({2, 3}).to(means.scalar_type());
    const at::Tensor scaled = y * as_channel_factors(at::sigmoid(mlp(means) + mlp(maxima)), y);
    const at::Tensor summary =
        at::cat({scaled.amax({1}, true), scaled.mean({1}, true)}, 1).to(means.scalar_type());
    const at::Tensor logits = norm_->forward(spatial_->forward(summary), state);
    return scaled * at::sigmoid(logits).to(y.scalar_type());
  }
  void initialize(std::uint64_t seed, const std::string& name) override {
    ChannelBottleneck::initialize(seed, name);
    // The rule of the model's other convolutions; one output.
    constexpr double kFanOut = kSpatialKernel * kSpatialKernel;
    fill_normal(spatial_->weight, seed, name + ".spatial.weight", std::sqrt(2.0 / kFanOut));
  }

 private:
  std::shared_ptr<Conv2d> spatial_;
  std::shared_ptr<GroupBatchNorm2d> norm_;
};

void read(Params& params) { ChannelBottleneck::read_reduction(params); }

const Registry<LayerAttentionInfo>::Add added_module{
    {.name = "cbam", .make = [](Params& params, const std::vector<LayerPlace>& places) {
       return module_for_each<ConvBlockAttention>(places,
                                                  ChannelBottleneck::read_reduction(params));
     }}};

const Registry<MethodInfo>::Add added{{
    .name = "cbam",
    .summary = "convolutional block attention: channels, then pixels of a branch are scaled",
    .paper = "Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018",
    .semantics = 1,
    .phase = Phase::LayerAttention,
    .needs = {Slot::ChannelAttention},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction = "",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<LayerMethod>("cbam", params, read);
    },
    .example =
        [] {
          return MethodExample{.model = "resnet20",
                               .params = "name = \"cbam\"",
                               .model_params = "image_size = 8",
                               .idle_params = "name = \"cbam\"\nstages = [3]"};
        },
}};

}  // namespace
}  // namespace ablate::methods::cbam
