#include "methods/layer_method.h"

#include <algorithm>

#include "runner/core/error.h"

namespace ablate {

namespace {

constexpr const char* kStages = "stages";
constexpr const char* kGroup = "group";

std::vector<LayerGroup> all_groups(Model& model, std::int64_t transformer_group) {
  std::vector<LayerGroup> groups;
  const std::vector<LayerSite*> sites = model.layer_sites();
  for (std::size_t i = 0; i < sites.size(); ++i) {
    const LayerPlace& place = sites[i]->place();
    const bool begins = i == 0 || place.stage != sites[i - 1]->place().stage ||
                        (place.tokens && groups.back().count == transformer_group);
    if (begins) groups.push_back({static_cast<int>(i), 0});
    ++groups.back().count;
  }
  return groups;
}

}  // namespace

LayerGroups LayerGroups::read(Params& params) {
  constexpr std::int64_t kMany = 10'000;
  LayerGroups groups;
  groups.stages = params.integers(kStages, {}, 0, kMany,
                                  "stages (groups of a transformer) that get it; empty: all");
  groups.transformer_group =
      params.integer(kGroup, 4, 1, kMany, "blocks of a transformer that make a group");
  return groups;
}

std::vector<LayerGroup> LayerGroups::of(Model& model, const std::string& where) const {
  const std::vector<LayerGroup> all = all_groups(model, transformer_group);
  if (stages.empty()) return all;
  std::vector<LayerGroup> chosen;
  for (const std::int64_t stage : stages) {
    if (stage >= std::ssize(all)) {
      throw SpecError(cat(where, ".stages: there is no stage ", stage,
                          "; the model has stages 0 to ", std::ssize(all) - 1));
    }
    chosen.push_back(all[static_cast<std::size_t>(stage)]);
  }
  return chosen;
}

void attach_layer_attention(Surgeon& surgeon, const std::vector<LayerGroup>& groups,
                            const std::string& module, const Value& settings, std::uint64_t seed) {
  for (const LayerGroup& group : groups) {
    surgeon.apply(AttachLayerAttention{group.first, group.count, module, settings});
  }
  const at::NoGradGuard no_grad;
  for (const LayerSite* site : surgeon.model().layer_sites()) {
    if (LayerAttention* attention = site->layer_attention()) {
      attention->initialize(seed, layer_attention_name(site->place()));
    }
  }
}

LayerMethod::LayerMethod(std::string module, Params& params, void (*read)(Params&))
    : module_(std::move(module)), groups_(LayerGroups::read(params)) {
  read(params);
  settings_ = params.resolved();
  settings_.as_table().erase(kStages);
  settings_.as_table().erase(kGroup);
}

void LayerMethod::check(const RunOutline& run) const {
  const std::vector<LayerSite*> sites = run.base.layer_sites();
  for (const LayerGroup& group : groups_.of(run.base, where())) {
    std::vector<LayerPlace> places;
    for (int i = 0; i < group.count; ++i) {
      places.push_back(sites[static_cast<std::size_t>(group.first + i)]->place());
    }
    Params params(settings_, where());
    Registry<LayerAttentionInfo>::get(module_).make(params, places);
  }
}

void LayerMethod::apply(TrainContext& context) {
  Surgeon& surgeon = context.surgeon();
  attach_layer_attention(surgeon, groups_.of(surgeon.model(), where()), module_, settings_,
                         context.seed());
}

}  // namespace ablate
