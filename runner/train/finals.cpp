#include "runner/train/finals.h"

#include <nlohmann/json.hpp>

#include "methods/models/weights_io.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/params.h"
#include "runner/train/checkpoint.h"
#include "runner/train/ema.h"

namespace ablate {
namespace {

constexpr const char* kStructure = "structure.json";
constexpr const char* kWeights = "model.safetensors";
constexpr const char* kEmaWeights = "ema.safetensors";

}  // namespace

using nlohmann::json;

json Structure::to_json() const {
  json list = json::array();
  for (const Edit& edit : edits) list.push_back(ablate::to_json(edit));
  return {{"model", {{"name", model.name}, {"params", model.params.to_json()}}},
          {"classes", classes},
          {"bn_group", bn_group},
          {"edits", std::move(list)}};
}

Structure Structure::from_json(const json& value) {
  try {
    Structure structure;
    structure.model = {.name = value.at("model").at("name").get<std::string>(),
                       .params = Value::from_json(value.at("model").at("params"))};
    structure.classes = value.at("classes").get<std::int64_t>();
    structure.bn_group = value.at("bn_group").get<std::int64_t>();
    for (const json& edit : value.at("edits")) structure.edits.push_back(edit_from_json(edit));
    return structure;
  } catch (const json::exception& error) {
    throw Error(cat("not a structure: ", error.what()));
  }
}

std::string Structure::hash() const { return structure_hash(model.name, model.params, edits); }

std::shared_ptr<Model> build_base_model(const Structure& structure) {
  const auto& info = Registry<ModelInfo>::get(structure.model.name);
  Params params(structure.model.params, cat("model \"", structure.model.name, "\""));
  const ModelBuilder build = info.configure(info.name, params);
  params.finish();
  return build({.num_classes = structure.classes, .bn_group = structure.bn_group});
}

void move_model(Model& model, at::Device device, at::ScalarType dtype) {
  model.to(device);
  for (auto& [name, tensor] : named_tensors(model)) {
    if (tensor.is_floating_point()) tensor.set_data(tensor.to(dtype));
  }
}

void replay(const std::vector<Edit>& edits, Surgeon& surgeon) {
  for (const Edit& edit : edits) surgeon.apply(edit);
}

json finals_json(const Structure& structure, const std::string& spec_id) {
  json text = structure.to_json();
  text["spec"] = spec_id;
  text["structure_hash"] = structure.hash();
  return text;
}

void write_finals(const std::filesystem::path& directory, const Structure& structure,
                  const std::string& spec_id, Model& model, Ema* ema,
                  const std::function<void()>& before_rename) {
  write_directory_atomic(
      directory,
      [&](const std::filesystem::path& fresh) {
        save_weights(model, fresh / kWeights);
        if (ema) {
          const Ema::Swap swap(*ema);
          save_weights(model, fresh / kEmaWeights);
        }
        write_file_atomic(fresh / kStructure, finals_json(structure, spec_id).dump(1));
      },
      before_rename);
}

Finals read_finals(const std::filesystem::path& directory) {
  const std::filesystem::path structure = directory / kStructure;
  if (!std::filesystem::is_regular_file(structure)) {
    throw Error(cat("no file ", structure.string(), ": that run has not finished here"));
  }
  Finals finals{.structure = Structure::from_json(json::parse(read_file(structure))),
                .weights = directory / kWeights,
                .ema_weights = directory / kEmaWeights};
  if (!std::filesystem::exists(finals.ema_weights)) finals.ema_weights.clear();
  return finals;
}

std::shared_ptr<Model> load_final_model(const Finals& finals, bool ema, at::ScalarType dtype,
                                        at::Device device) {
  if (ema && finals.ema_weights.empty()) {
    throw Error(cat(finals.weights.parent_path().string(),
                    ": the run kept no weight average; train it with ema_decay > 0"));
  }
  std::shared_ptr<Model> model = build_base_model(finals.structure);
  Surgeon surgeon(*model);
  replay(finals.structure.edits, surgeon);
  move_model(*model, device, dtype);
  load_weights(*model, ema ? finals.ema_weights : finals.weights);
  return model;
}

}  // namespace ablate
