#include "runner/worker/model_options.h"

#include <CLI/CLI.hpp>

namespace ablate {

Structure ModelOptions::base() const {
  return {.model = resolve_model(model, toml_argument(model_params, "model-params")),
          .classes = classes,
          .bn_group = 0,
          .edits = {}};
}

std::vector<Component> ModelOptions::methods_of(const std::string& list) const {
  return resolve_methods(model, toml_argument(list, "methods"));
}

Structure ModelOptions::structure_with(const std::string& list) const {
  Structure structure = base();
  const std::shared_ptr<Model> built = build_model(structure, at::kFloat, 0);
  Surgeon surgeon(*built);
  apply_methods(methods_of(list), surgeon);
  structure.edits = surgeon.edits();
  return structure;
}

void add_model_options(CLI::App& app, ModelOptions& options) {
  app.add_option("--model", options.model, "Registered model");
  app.add_option("--model-params", options.model_params,
                 "Its settings: inline TOML table, or a file with the key model-params");
  app.add_option("--methods", options.methods,
                 "Methods: inline TOML array, or a file with the key methods");
  app.add_option("--classes", options.classes, "Classes of the head")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

}  // namespace ablate
