#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "methods/method_stack.h"
#include "methods/models/weights_io.h"
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
      cat("epochs = ", epochs, "\nglobal_batch = 32\nprecision = '", precision,
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

/// tome_and_recipes.md A12 read off the edits of a transformer: removed attention costs nothing,
/// merging shortens.
inline std::int64_t transformer_macs(const Model& model, const std::vector<Edit>& edits) {
  const auto parameters = model.named_parameters();
  std::int64_t tokens = parameters["pos_embed"].size(1);
  const std::int64_t dim = parameters["pos_embed"].size(2);
  std::int64_t macs = (tokens - 1) * parameters["patch_embed.proj.weight"].numel() +
                      parameters["head.weight"].numel();
  std::set<int> removed;
  std::map<int, std::int64_t> merged;
  for (const Edit& edit : edits) {
    if (const auto* removal = std::get_if<RemoveMixer>(&edit)) removed.insert(removal->block);
    if (const auto* insert = std::get_if<InsertReducer>(&edit)) {
      merged[insert->block] = insert->params.find("r")->as_int();
    }
  }
  for (int block = 0; parameters.contains(cat("blocks.", block, ".norm2.weight")); ++block) {
    const std::int64_t hidden = parameters[cat("blocks.", block, ".mlp.fc1.weight")].size(0);
    if (!removed.contains(block)) macs += 4 * tokens * dim * dim + 2 * tokens * tokens * dim;
    tokens -= std::min(merged[block], (tokens - 1) / 2);
    macs += 2 * tokens * dim * hidden;
  }
  return macs;
}

/// Whether transformer_macs() is the formula for this model.
inline bool is_transformer(std::string_view model) { return model.starts_with("vit"); }

}  // namespace ablate::test
