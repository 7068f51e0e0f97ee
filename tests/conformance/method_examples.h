#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "methods/method_stack.h"
#include "methods/models/weights_io.h"
#include "runner/core/error.h"
#include "tests/support/method_context.h"
#include "tests/support/models.h"

// The examples that the files of the methods give, made into models, contexts and runs.

namespace ablate::test {

inline MethodExample example_of(std::string_view method) {
  return Registry<MethodInfo>::get(method).example();
}

inline std::shared_ptr<Model> example_model(const MethodExample& example,
                                            const std::string& more_settings = "") {
  auto model = make_model(example.model, example.model_params + "\n" + more_settings, 4);
  model->initialize(1);
  return model;
}

/// A context with data to decide on and a run long enough for any schedule.
inline std::unique_ptr<MethodContext> example_context(Model& model) {
  auto context = std::make_unique<MethodContext>(model);
  context->length = 1000;
  context->batches = {{wavy_images(16, model.image_size()), at::ones({16})}};
  return context;
}

/// A run of these methods on the model of an example: an epoch is four steps.
inline std::string example_run(const MethodExample& on, const std::vector<MethodExample>& methods,
                               int epochs, const std::string& precision) {
  std::string table =
      cat("epochs = ", epochs, "\nglobal_batch = 32\nbn_group = 8\nprecision = '", precision,
          "'\nseed = 3\n[dataset]\nname = 'synthetic'\ntrain_size = 128\n",
          "test_size = 40\nclasses = 4\nimage_size = ", example_model(on)->image_size(),
          "\n[optimizer]\nname = 'adamw'\nlr = 2e-3\n[model]\nname = '", on.model, "'\n",
          on.model_params, "\n");
  for (const MethodExample& method : methods) table += cat("[[methods]]\n", method.params, "\n");
  return table;
}

/// All tensors by name, copied.
inline std::map<std::string, at::Tensor> weights_of(const Model& model) {
  std::map<std::string, at::Tensor> weights;
  for (const auto& [name, tensor] : named_tensors(model)) weights[name] = tensor.detach().clone();
  return weights;
}

/// A fresh base model with these edits replayed from JSON and these weights copied in.
inline std::shared_ptr<Model> replayed_model(const MethodExample& example,
                                             const std::vector<Edit>& edits,
                                             const std::map<std::string, at::Tensor>& weights) {
  auto model = example_model(example);
  Surgeon surgeon(*model);
  for (const Edit& edit : edits) {
    surgeon.apply(edit_from_json(nlohmann::json::parse(to_json(edit).dump())));
  }
  ABLATE_CHECK(surgeon.edits() == edits, "a replay must record the same edits");
  const NamedTensors tensors = named_tensors(*model);
  ABLATE_CHECK(tensors.size() == weights.size(), tensors.size(), " of ", weights.size());
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : tensors) at::Tensor(tensor).copy_(weights.at(name));
  return model;
}

/// What a token reducer leaves of so many tokens of a plain ViT, by the definition of each kind.
inline std::int64_t tokens_behind(const InsertReducer& edit, std::int64_t tokens) {
  const auto integer = [&](const char* key) { return edit.params.find(key)->as_int(); };
  const auto share = [&] {
    return static_cast<std::int64_t>(
        std::ceil(edit.params.find("keep")->as_double() * static_cast<double>(tokens - 1)));
  };
  if (edit.reducer == "tome") return tokens - std::min(integer("r"), (tokens - 1) / 2);
  if (edit.reducer == "random_pruning") return 1 + share();
  if (edit.reducer == "evit") {
    const std::int64_t fused = edit.params.find("fuse_token")->as_bool() ? 1 : 0;
    return std::min(tokens, 1 + share() + fused);
  }
  if (edit.reducer == "diffrate") return std::min({tokens, integer("prune"), integer("merge")});
  if (edit.reducer == "dynamic_vit") return std::min(tokens, 1 + integer("left"));
  throw Error(cat("no formula for the token reducer ", edit.reducer));
}

/// What deciding costs: DynamicViT has a network for it, in front of its block.
inline std::int64_t deciding_macs(const InsertReducer& edit, std::int64_t tokens,
                                  std::int64_t dim) {
  if (edit.reducer != "dynamic_vit") return 0;
  return (tokens - 1) * (dim * dim + dim * dim / 2 + dim / 2 * dim / 4 + dim / 4 * 2);
}

/// Layer attention of one group on `patches` patches: each value is a convolution over all of them,
/// queries and keys are convolutions over the channels. Dynamic layer attention asks its unit once
/// for each block and once for each entry that is refreshed, and what the unit makes of a state is
/// computed once for each of them, the last one included where it refreshes anything.
inline std::int64_t layer_attention_macs(const Model& model, const AttachLayerAttention& group,
                                         std::int64_t patches, std::int64_t dim) {
  std::int64_t macs = 0, unit = 0, mix = 0;
  for (const auto& item : model.named_parameters()) {
    const std::string& name = item.key();
    const std::int64_t numel = item.value().numel();
    for (int block = group.block; block < group.block + group.count; ++block) {
      const std::string prefix = cat("blocks.", block, ".layer_attention.");
      if (!name.starts_with(prefix)) continue;
      if (name == prefix + "query" || name == prefix + "key") macs += numel * dim;
      if (name == prefix + "value") macs += numel * patches;
      if (name == prefix + "unit.mix") mix = numel * patches;
      if (name.starts_with(prefix + "unit.input") && name.ends_with(".weight")) unit += numel;
    }
  }
  const std::int64_t n = group.count;
  const std::int64_t refreshed = group.module == "dla_base" ? n * (n - 1) : n;
  const std::int64_t asked = n + refreshed, states = n + (refreshed > 0 ? 1 : 0);
  return macs + (asked + states) * unit + n * mix;
}

/// Multiply-accumulates read off the edits of a transformer: removed attention costs nothing,
/// merging shortens, channels that were cut are not there, and reweighting adds its two layers.
inline std::int64_t transformer_macs(const Model& model, const std::vector<Edit>& edits) {
  const auto parameters = model.named_parameters();
  std::int64_t tokens = parameters["pos_embed"].size(1);
  const std::int64_t dim = parameters["pos_embed"].size(2);
  std::int64_t macs = (tokens - 1) * parameters["patch_embed.proj.weight"].numel() +
                      parameters["head.weight"].numel();
  std::set<int> removed;
  std::map<int, std::int64_t> reweighted;
  std::map<int, InsertReducer> reducers;
  std::map<std::pair<int, std::string>, std::int64_t> kept;
  for (const Edit& edit : edits) {
    if (const auto* removal = std::get_if<RemoveMixer>(&edit)) removed.insert(removal->block);
    if (const auto* group = std::get_if<AttachLayerAttention>(&edit)) {
      macs += layer_attention_macs(model, *group, tokens - 1, dim);
    }
    if (const auto* insert = std::get_if<InsertReducer>(&edit)) {
      reducers.emplace(insert->block, *insert);
    }
    if (const auto* cut = std::get_if<KeepChannels>(&edit)) {
      kept[{cut->block, cut->group}] = std::ssize(cut->channels);
    }
    if (const auto* module = std::get_if<AttachReweight>(&edit)) {
      reweighted[module->block] = module->hidden;
    }
  }
  for (int block = 0; parameters.contains(cat("blocks.", block, ".norm2.weight")); ++block) {
    const auto reducer = reducers.find(block);
    const auto reduce = [&](bool in_front) {
      if (reducer == reducers.end()) return;
      if ((reducer->second.reducer == "dynamic_vit") != in_front) return;
      macs += deciding_macs(reducer->second, tokens, dim);
      tokens = tokens_behind(reducer->second, tokens);
    };
    reduce(true);
    const auto channels = [&](const char* group, std::int64_t all) {
      const auto found = kept.find({block, group});
      return found == kept.end() ? all : found->second;
    };
    const std::int64_t hidden =
        channels("mlp", parameters[cat("blocks.", block, ".mlp.fc1.weight")].size(0));
    if (!removed.contains(block)) {
      const std::int64_t qk = channels("qk", dim), v = channels("v", dim);
      macs += 2 * tokens * dim * (qk + v) + tokens * tokens * (qk + v) + 2 * v * reweighted[block];
    }
    reduce(false);
    macs += 2 * tokens * dim * hidden;
  }
  return macs;
}

/// Whether transformer_macs() is the formula for this model.
inline bool is_transformer(std::string_view model) { return model.starts_with("vit"); }

}  // namespace ablate::test
