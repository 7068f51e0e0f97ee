#include <cmath>

#include "methods/dla.h"
#include "methods/layer_method.h"
#include "methods/models/layer_maps.h"
#include "runner/core/params.h"

namespace ablate::methods::dla_light {
namespace {

/// What the blocks of a group share: the unit, and a 3x3 depthwise convolution, parameter mix
/// (C, 1, 3, 3).
class SharedParts final : public DynamicSharingUnit {
 public:
  SharedParts(std::int64_t channels, std::int64_t reduction)
      : DynamicSharingUnit(channels, reduction),
        mix_(register_parameter("mix", at::empty({channels, 1, 3, 3}))) {}

  at::Tensor mixed(const at::Tensor& map) const { return depthwise_conv(map, mix_); }
  void draw(std::uint64_t seed, const std::string& name) {
    initialize(seed, name);
    const auto fan_out = static_cast<double>(9 * mix_.size(0));
    fill_normal(mix_, seed, name + ".mix", std::sqrt(2.0 / fan_out));
  }

 private:
  at::Tensor mix_;
};

/// Gated layer attention that refreshes what its shortcut brings: with h(y) the context of y under
/// the state that the blocks so far have left, this one included, o <- o h(GAP o) + conv(o). The
/// first block of the group owns the shared parts, child unit.
class DlaLight final : public MrlaLight {
 public:
  DlaLight(const LayerPlace& place, const DlaOptions& options, std::shared_ptr<SharedParts> shared,
           bool owns)
      : MrlaLight(place, options.mrla), shared_(std::move(shared)), owns_(owns) {
    if (owns) register_module("unit", shared_);
  }

  bool can_skip(SkipMode mode) const override { return mode == SkipMode::None; }
  void initialize(std::uint64_t seed, const std::string& name) override {
    MrlaLight::initialize(seed, name);
    if (owns_) shared_->draw(seed, name + ".unit");
  }

 protected:
  at::Tensor refresh(const at::Tensor& previous, LayerHistory& history) override {
    const at::Tensor context = shared_->context(pool_channels(previous), history);
    return at::addcmul(shared_->mixed(previous), previous, as_channel_factors(context, previous));
  }
  void advance(const at::Tensor& pooled, LayerHistory& history) override {
    shared_->advance(pooled, history);
  }

 private:
  std::shared_ptr<SharedParts> shared_;
  bool owns_;
};

const Registry<LayerAttentionInfo>::Add added_module{
    {.name = "dla_light", .make = [](Params& params, const std::vector<LayerPlace>& places) {
       const DlaOptions options = DlaOptions::read(params, false);
       const auto shared =
           std::make_shared<SharedParts>(places.front().channels, options.reduction);
       std::vector<std::shared_ptr<LayerAttention>> modules;
       for (std::size_t i = 0; i < places.size(); ++i) {
         modules.push_back(std::make_shared<DlaLight>(places[i], options, shared, i == 0));
       }
       return modules;
     }}};

const Registry<MethodInfo>::Add added{{
    .name = "dla_light",
    .summary = "gated layer attention that refreshes what a block's shortcut brings",
    .paper = kDlaPaper,
    .semantics = 2,
    .phase = Phase::LayerAttention,
    .needs = {Slot::LayerAttention},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction = kDlaReconstruction,
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<LayerMethod>("dla_light", params,
                                           [](Params& p) { DlaOptions::read(p, false); });
    },
    .example =
        [] {
          return MethodExample{.model = "resnet20",
                               .params = "name = \"dla_light\"",
                               .model_params = "image_size = 8",
                               .idle_params = "name = \"dla_light\"\nstages = [3]"};
        },
}};

}  // namespace
}  // namespace ablate::methods::dla_light
