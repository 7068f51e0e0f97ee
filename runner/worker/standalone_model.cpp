#include "runner/worker/standalone_model.h"

#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "methods/method_stack.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/train/run_context.h"
#include "runner/train/run_data.h"

namespace ablate {

namespace fs = std::filesystem;

Value toml_argument(const std::string& text, const std::string& key) {
  std::error_code not_a_path;
  if (!fs::is_regular_file(text, not_a_path)) {
    return *parse_toml(cat(key, " = ", text), "--" + key).find(key);
  }
  const Value file = read_toml(text);
  const Value* value = file.find(key);
  if (!value) throw SpecError(cat(text, ": has no key \"", key, "\""));
  return *value;
}

Component resolve_model(const std::string& name, const Value& settings) {
  const auto& info = Registry<ModelInfo>::get(name);
  Params params(settings, cat("model \"", name, "\""));
  info.configure(name, params);
  params.finish();
  return {name, info.semantics, params.resolved()};
}

std::vector<Component> resolve_methods(const std::string& model, const Value& list) {
  std::vector<Component> methods;
  for (const Value& element : list.as_array()) {
    const Value* name = element.find("name");
    if (!name) throw SpecError(cat(element.origin().str(), ": a method needs a name"));
    const auto& info = Registry<MethodInfo>::get(name->as_string(), name->origin().str());
    Value settings = element;
    settings.as_table().erase("name");
    Params params(settings, cat("methods \"", info.name, "\""));
    info.make(params);
    params.finish();
    methods.push_back({std::string(info.name), info.semantics, params.resolved()});
  }
  sort_methods(methods);
  check_methods(Registry<ModelInfo>::get(model), methods, list.origin().str());
  return methods;
}

void apply_methods(const std::vector<Component>& methods, Surgeon& surgeon) {
  const auto world = make_self_communicator();
  const auto refuse = [](DecisionSplit, std::int64_t, const TrainContext::LabelledVisitor&) {
    throw SpecError(
        "a method decides on data here, but there is none outside a run: give its decision (as "
        "`layers = [...]` for nose), or the final/structure.json of a finished run");
  };
  RunContext context(surgeon, *world, RunLength{}, 0, 0, refuse, nullptr);
  MethodStack stack(methods);
  stack.apply(context);
  stack.finalize(surgeon);
}

Structure structure_of_spec(const RunSpec& spec, const DataRoots& data) {
  if (spec.parent("init")) {
    throw SpecError(
        "this run starts from another one, whose edits its spec does not hold; give the "
        "final/structure.json of the run instead");
  }
  Params params(spec.training, "run");
  const TrainingOptions options = TrainingOptions::read(params);
  const RunData opened(spec, options, {.data = data}, {});
  Structure structure{
      .model = spec.model, .classes = opened.classes(), .bn_group = options.bn_group, .edits = {}};
  const std::shared_ptr<Model> model = build_model(structure, at::kFloat, spec.seed);
  Surgeon surgeon(*model);
  apply_methods(spec.methods, surgeon);
  structure.edits = surgeon.edits();
  return structure;
}

Structure read_structure(const fs::path& file, const DataRoots& data) {
  const auto json = nlohmann::json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("edits")) return Structure::from_json(json);
  if (json.is_object() && json.contains("dataset")) {
    return structure_of_spec(RunSpec::from_json(json), data);
  }
  throw SpecError(cat(file.string(), ": neither a structure.json nor a resolved spec.json"));
}

std::shared_ptr<Model> build_model(const Structure& structure, at::ScalarType dtype,
                                   std::uint64_t seed) {
  std::shared_ptr<Model> model = build_base_model(structure);
  move_model(*model, at::kCPU, dtype);  // floating-point tensors alone
  model->initialize(seed);
  Surgeon surgeon(*model);
  replay(structure.edits, surgeon);
  return model;
}

}  // namespace ablate
