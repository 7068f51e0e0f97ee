#pragma once

#include <string>

#include "runner/worker/standalone_model.h"

namespace CLI {
class App;
}

namespace ablate {

/// A model and its methods as a command line names them.
struct ModelOptions {
  std::string model, model_params = "{}", methods = "[]";
  std::int64_t classes = 1000;

  /// The model without its methods. Throws SpecError.
  Structure base() const;
  std::vector<Component> resolved_methods() const { return methods_of(methods); }
  /// Methods of another list for the same model. Throws SpecError.
  std::vector<Component> methods_of(const std::string& list) const;
  /// The structure that a finished run with these methods has (apply_methods). Throws SpecError.
  Structure structure_with(const std::string& list) const;
};

/// --model, --model-params, --methods, --classes.
void add_model_options(CLI::App& app, ModelOptions& options);

}  // namespace ablate
