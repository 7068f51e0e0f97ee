#include <cmath>

#include "methods/layer_method.h"
#include "methods/models/layer_maps.h"
#include "methods/mrla.h"
#include "runner/core/params.h"

namespace ablate {

at::Tensor MrlaBase::retrieve(const at::Tensor& map, const at::Tensor&, ForwardState& state) {
  LayerHistory& history = *state.layer_history;
  if (skip() != SkipMode::None && wants_shadow(state)) record_skipped(map, state);
  if (skip() == SkipMode::Reuse) return history.retrieved;
  if (skip() == SkipMode::KeepKeys) {
    history.keys.push_back(key_of(pool_channels(map)));
    history.values.push_back(share_map(value_of(map)));
    return {};
  }
  const at::Tensor pooled = pool_channels(map);
  const auto [query, key] = query_and_key(pooled);
  if (skip() == SkipMode::None && wants_shadow(state)) record_shadow(query, key, state);
  history.keys.push_back(key);
  history.values.push_back(share_map(value_of(map)));
  advance(pooled, history);
  refresh(history);
  history.retrieved =
      skip() == SkipMode::Recur ? recur(query, history) : retrieve_all(query, state);
  return history.retrieved;
}

at::Tensor MrlaBase::sum_values(const at::Tensor& weights, const ForwardState& state) const {
  return weighted_sum(weights, state.layer_history->values, state);
}

at::Tensor MrlaBase::retrieve_all(const at::Tensor& query, ForwardState& state) const {
  LayerHistory& history = *state.layer_history;
  history.query = query;
  history.logits.reset();
  history.log_sum.reset();
  const bool alone = history.keys.size() == 1;  // the weight is 1 whatever the query
  if (!alone) history.logits = row_logits(query, history.keys);
  if (state.retrievals && !wants_shadow(state)) {
    const at::NoGradGuard no_grad;
    const at::Tensor logits =
        alone ? logits_of(query, history.keys[0]).unsqueeze(2) : history.logits;
    state.retrievals->retrievals.push_back({.block = block(),
                                            .log_row = at::log_softmax(logits, 2),
                                            .query = {},
                                            .key = {},
                                            .logits = {}});
  }
  if (alone) return history.values.front().map;
  return sum_values(at::softmax(history.logits, 2), state);
}

/// With p the weight that the last entry would have beside what was retrieved before.
at::Tensor MrlaBase::recur(const at::Tensor& query, LayerHistory& history) const {
  if (!history.log_sum.defined()) {
    history.log_sum = history.logits.defined() ? history.logits.logsumexp(2)
                                               : logits_of(history.query, history.keys.front());
  }
  const at::Tensor logits = logits_of(query, history.keys.back());
  const at::Tensor p = at::sigmoid(logits - history.log_sum);
  history.log_sum = at::logaddexp(history.log_sum, logits);
  const at::Tensor& before = history.retrieved;
  return at::lerp(before, history.values.back().map, spread_heads(p, before));
}

at::Tensor MrlaBase::row_logits(const at::Tensor& query,
                                const std::vector<at::Tensor>& keys) const {
  const at::Tensor products = query.unsqueeze(2) * at::stack(keys, 2);
  return products.unflatten(1, {-1, head_dim_}).sum(2) / std::sqrt(static_cast<double>(head_dim_));
}

void MrlaBase::record_shadow(const at::Tensor& query, const at::Tensor& key, ForwardState& state) {
  state.retrievals->retrievals.push_back({.block = block(),
                                          .log_row = {},
                                          .query = in_heads(query.detach()),
                                          .key = in_heads(key.detach()),
                                          .logits = {}});
}

std::vector<std::string> MrlaBase::unused(SkipMode mode) const {
  switch (mode) {
    case SkipMode::None:
    case SkipMode::Recur:
      return {};
    case SkipMode::Drop:
      return {"query", "key", "value", "norm"};
    case SkipMode::KeepKeys:
      // On tokens the norm stands in front of key and value.
      if (on_tokens()) return {"query"};
      return {"query", "norm"};
    case SkipMode::Reuse:
      return {"query", "key", "value"};
  }
  return {};
}

namespace methods::mrla_base {
namespace {

void read(Params& params) { MrlaOptions::read(params, true); }

const Registry<LayerAttentionInfo>::Add added_module{
    {.name = "mrla_base", .make = [](Params& params, const std::vector<LayerPlace>& places) {
       return module_for_each<MrlaBase>(places, MrlaOptions::read(params, true));
     }}};

const Registry<MethodInfo>::Add added{{
    .name = "mrla_base",
    .summary =
        "each block retrieves features of all earlier ones of its stage by softmax attention",
    .paper = "Fang et al., Cross-Layer Retrospective Retrieving via Layer Attention, ICLR 2023",
    .semantics = 1,
    .phase = Phase::LayerAttention,
    .needs = {Slot::LayerAttention},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction = "",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<LayerMethod>("mrla_base", params, read);
    },
    .example =
        [] {
          return MethodExample{.model = "resnet20",
                               .params = "name = \"mrla_base\"",
                               .model_params = "image_size = 8",
                               .idle_params = "name = \"mrla_base\"\nstages = [3]"};
        },
}};

}  // namespace
}  // namespace methods::mrla_base

}  // namespace ablate
