#include "methods/layer_method.h"
#include "methods/models/layer_maps.h"
#include "methods/mrla.h"
#include "runner/core/params.h"

namespace ablate {

MrlaLight::MrlaLight(const LayerPlace& place, const MrlaOptions& options) : Mrla(place, options) {
  gain_ = register_parameter("gain", at::empty({place.channels, 1, 1}));
  if (!place.tokens) return;
  previous_norm_ = register_module("norm_previous",
                                   std::make_shared<LayerNorm>(place.channels, token_norm_->eps));
}

void MrlaLight::initialize(std::uint64_t seed, const std::string& name) {
  Mrla::initialize(seed, name);
  fill_normal(gain_, seed, name + ".gain", 1.0);
}

bool MrlaLight::needs_previous() const { return skip() == SkipMode::None; }

at::Tensor MrlaLight::remember(const at::Tensor& input, const ForwardState& state) const {
  return on_tokens() ? to_map(previous_norm_->forward(input), state) : input;
}

bool MrlaLight::can_skip(SkipMode mode) const {
  return mode == SkipMode::None || mode == SkipMode::Drop || mode == SkipMode::Reuse;
}

at::Tensor MrlaLight::retrieve(const at::Tensor& map, const at::Tensor& previous,
                               ForwardState& state) {
  LayerHistory& history = *state.layer_history;
  if (skip() == SkipMode::Reuse) {
    if (wants_shadow(state)) record_skipped(map, state);
    return history.retrieved;
  }
  const at::Tensor pooled = pool_channels(map);
  const auto [query, key] = query_and_key(pooled);
  const at::Tensor logits = logits_of(query, key);
  if (state.retrievals) record_logits(logits, state);
  const at::Tensor value = on_tokens() ? at::gelu(value_of(map)) : value_of(map);
  advance(pooled, history);
  const at::Tensor before = refresh(previous, history).to(value.scalar_type());
  history.retrieved = weighted_sum(channel_weights(logits), {{value}, {before}}, state);
  return history.retrieved;
}

at::Tensor MrlaLight::channel_weights(const at::Tensor& logits) const {
  const std::int64_t batch = logits.size(0);
  const at::Tensor gates = at::sigmoid(logits).unsqueeze(2).expand({-1, -1, head_dim_}).flatten(1);
  const at::Tensor gains = gain_.to(gates.scalar_type()).view({1, -1}).expand({batch, -1});
  return at::stack({gates, gains}, 2);
}

void MrlaLight::record_shadow(const at::Tensor& query, const at::Tensor& key, ForwardState& state) {
  record_logits(logits_of(query, key), state);
}

void MrlaLight::record_logits(const at::Tensor& logits, ForwardState& state) const {
  state.retrievals->retrievals.push_back(
      {.block = block(), .log_row = {}, .query = {}, .key = {}, .logits = logits.detach()});
}

std::vector<std::string> MrlaLight::unused(SkipMode mode) const {
  std::vector<std::string> names;
  if (mode == SkipMode::None) return names;
  names = {"query", "key", "value", "gain"};
  if (on_tokens()) names.emplace_back("norm_previous");
  if (mode == SkipMode::Drop) names.emplace_back("norm");
  return names;
}

void MrlaLight::forget(const std::vector<std::string>& parts) {
  Mrla::forget(parts);
  gain_.reset();
  previous_norm_.reset();
}

namespace methods::mrla_light {
namespace {

void read(Params& params) { MrlaOptions::read(params, false); }

const Registry<LayerAttentionInfo>::Add added_module{
    {.name = "mrla_light", .make = [](Params& params, const std::vector<LayerPlace>& places) {
       return module_for_each<MrlaLight>(places, MrlaOptions::read(params, false));
     }}};

const Registry<MethodInfo>::Add added{{
    .name = "mrla_light",
    .summary = "each block adds a gated value of its own and its shortcut's features to its output",
    .paper = "Fang et al., Cross-Layer Retrospective Retrieving via Layer Attention, ICLR 2023",
    .semantics = 1,
    .phase = Phase::LayerAttention,
    .needs = {Slot::LayerAttention},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction = "",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<LayerMethod>("mrla_light", params, read);
    },
    .example =
        [] {
          return MethodExample{.model = "resnet20",
                               .params = "name = \"mrla_light\"",
                               .model_params = "image_size = 8",
                               .idle_params = "name = \"mrla_light\"\nstages = [3]"};
        },
}};

}  // namespace
}  // namespace methods::mrla_light

}  // namespace ablate
