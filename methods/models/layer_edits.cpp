#include "methods/models/layer_edits.h"

#include "methods/models/model.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {

namespace {

[[noreturn]] void refuse_layer_edit(const Edit& edit, const std::string& reason) {
  throw Error(cat("cannot ", describe(edit), ": ", reason));
}

/// Blocks `block` to `block + count - 1` of those that can be connected.
std::vector<LayerSite*> find_sites(Model& model, int block, int count, const Edit& edit) {
  const std::vector<LayerSite*> all = model.layer_sites();
  const int known = static_cast<int>(all.size());
  if (known == 0) refuse_layer_edit(edit, "the model has no place for layer attention");
  if (block < 0 || count < 1 || count > known - block) {
    refuse_layer_edit(edit, cat("the model has blocks 0 to ", known - 1));
  }
  return {all.begin() + block, all.begin() + block + count};
}

LayerAttention& find_module(Model& model, int block, const Edit& edit) {
  LayerAttention* module = find_sites(model, block, 1, edit).front()->layer_attention();
  if (!module) refuse_layer_edit(edit, "it has no layer attention");
  return *module;
}

std::vector<LayerPlace> alike_places(const std::vector<LayerSite*>& sites, const Edit& edit) {
  std::vector<LayerPlace> places;
  for (const LayerSite* site : sites) {
    if (site->layer_attention()) {
      refuse_layer_edit(edit, cat(site->place().name, " has layer attention already"));
    }
    if (site->place().stage != sites.front()->place().stage) {
      refuse_layer_edit(edit, cat(sites.front()->place().name, " and ", site->place().name,
                                  " differ in shape; a group lies within a stage"));
    }
    places.push_back(site->place());
  }
  return places;
}

/// Brings a new module to where the model is and into its precision and mode.
void match(LayerAttention& module, const Model& model) {
  const at::Tensor like = model.parameters().front();
  const at::NoGradGuard no_grad;
  for (at::Tensor& tensor : module.parameters()) tensor.set_data(tensor.to(like.options()));
  for (at::Tensor& tensor : module.buffers()) {
    const bool real = tensor.is_floating_point();
    tensor.set_data(tensor.to(like.device(), real ? like.scalar_type() : tensor.scalar_type()));
  }
  module.train(model.is_training());
}

}  // namespace

bool perform(Model& model, const AttachLayerAttention& edit) {
  const std::vector<LayerSite*> sites = find_sites(model, edit.block, edit.count, edit);
  const std::vector<LayerPlace> places = alike_places(sites, edit);
  Params params(edit.params, cat("layer attention ", edit.module));
  const auto modules = Registry<LayerAttentionInfo>::get(edit.module).make(params, places);
  params.finish();
  ABLATE_CHECK(modules.size() == sites.size(), modules.size(), " modules for ", sites.size());
  for (std::size_t i = 0; i < sites.size(); ++i) {
    if (modules[i]->on_branch() && places[i].tokens) {
      refuse_layer_edit(edit, "its blocks have no place for channel attention");
    }
    modules[i]->set_numbers(edit.block + static_cast<int>(i), edit.block);
    modules[i]->initialize(0, layer_attention_name(places[i]));
    match(*modules[i], model);
    sites[i]->set_layer_attention(modules[i]);
  }
  return true;
}

bool perform(Model& model, const SkipRetrieval& edit) {
  LayerAttention& module = find_module(model, edit.block, edit);
  if (module.skip() == edit.mode) refuse_layer_edit(edit, "it is so already");
  if (module.reduced()) refuse_layer_edit(edit, "what it would need has been deleted");
  if (module.block() == module.group()) {
    refuse_layer_edit(edit, "the first block of a group has nothing before it to rely on");
  }
  if (edit.mode != SkipMode::None && !module.can_skip(edit.mode)) {
    refuse_layer_edit(edit, "its layer attention has no such form");
  }
  module.set_skip(edit.mode);
  return true;
}

bool perform(Model& model, const DeleteSkipped& edit) {
  LayerAttention& module = find_module(model, edit.block, edit);
  if (module.skip() == SkipMode::None) refuse_layer_edit(edit, "its retrieval is not skipped");
  if (module.skip() == SkipMode::Drop) {
    find_sites(model, edit.block, 1, edit).front()->set_layer_attention(nullptr);
    return true;
  }
  if (!module.delete_unused()) refuse_layer_edit(edit, "nothing is left to delete");
  return true;
}

}  // namespace ablate
