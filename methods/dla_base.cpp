#include "methods/dla.h"
#include "methods/layer_method.h"
#include "methods/models/layer_maps.h"
#include "runner/core/params.h"

namespace ablate::methods::dla_base {
namespace {

/// Softmax layer attention whose cache is refreshed before each retrieval: with h(y) the context of
/// y under the state that the blocks so far have left, this one included,
///
///   k_i <- k_i h(k_i),  v_i <- v_i h(GAP v_i)  for the blocks before.
///
/// Refreshed values are kept as the values and factors of their channels: no map is written again.
/// The first block of the group owns the sharing unit, child unit.
class DlaBase final : public MrlaBase {
 public:
  DlaBase(const LayerPlace& place, const DlaOptions& options,
          std::shared_ptr<DynamicSharingUnit> unit, bool owns)
      : MrlaBase(place, options.mrla), unit_(std::move(unit)), owns_(owns) {
    if (owns) register_module("unit", unit_);
  }

  bool can_skip(SkipMode mode) const override { return mode == SkipMode::None; }
  void initialize(std::uint64_t seed, const std::string& name) override {
    MrlaBase::initialize(seed, name);
    if (owns_) unit_->initialize(seed, name + ".unit");
  }

 protected:
  void refresh(LayerHistory& history) override {
    for (std::size_t i = 0; i + 1 < history.keys.size(); ++i) {
      at::Tensor &key = history.keys[i], &factor = history.value_factors[i];
      key = key * unit_->context(key, history);
      factor = factor * unit_->context(history.value_means[i] * factor, history);
    }
    history.value_means.push_back(pool_channels(history.values.back().map));
    history.value_factors.push_back(at::ones_like(history.value_means.back()));
  }
  void advance(const at::Tensor& pooled, LayerHistory& history) override {
    unit_->advance(pooled, history);
  }
  at::Tensor sum_values(const at::Tensor& weights, const ForwardState& state) const override {
    const LayerHistory& history = *state.layer_history;
    const at::Tensor factors = at::stack(history.value_factors, 2);
    const std::int64_t heads = weights.size(1);
    const at::Tensor of_channels = weights.unsqueeze(2) * factors.unflatten(1, {heads, -1});
    return weighted_sum(of_channels.flatten(1, 2), history.values, state);
  }

 private:
  std::shared_ptr<DynamicSharingUnit> unit_;
  bool owns_;
};

const Registry<LayerAttentionInfo>::Add added_module{
    {.name = "dla_base", .make = [](Params& params, const std::vector<LayerPlace>& places) {
       const DlaOptions options = DlaOptions::read(params, true);
       const auto unit =
           std::make_shared<DynamicSharingUnit>(places.front().channels, options.reduction);
       std::vector<std::shared_ptr<LayerAttention>> modules;
       for (std::size_t i = 0; i < places.size(); ++i) {
         modules.push_back(std::make_shared<DlaBase>(places[i], options, unit, i == 0));
       }
       return modules;
     }}};

const Registry<MethodInfo>::Add added{{
    .name = "dla_base",
    .summary = "softmax layer attention that refreshes what earlier blocks have left",
    .paper = kDlaPaper,
    .semantics = 2,
    .phase = Phase::LayerAttention,
    .needs = {Slot::LayerAttention},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction = kDlaReconstruction,
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<LayerMethod>("dla_base", params,
                                           [](Params& p) { DlaOptions::read(p, true); });
    },
    .example =
        [] {
          return MethodExample{.model = "resnet20",
                               .params = "name = \"dla_base\"",
                               .model_params = "image_size = 8",
                               .idle_params = "name = \"dla_base\"\nstages = [3]"};
        },
}};

}  // namespace
}  // namespace ablate::methods::dla_base
