#include "runner/core/run_spec.h"

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/hash.h"

namespace ablate {
namespace {

using nlohmann::json;

json component_json(const Component& component) {
  return {{"name", component.name},
          {"semantics", component.semantics},
          {"params", component.params.to_json()}};
}

Component component_from_json(const json& value) {
  return {value.at("name").get<std::string>(), value.at("semantics").get<int>(),
          Value::from_json(value.at("params"))};
}

json components_json(const std::vector<Component>& components) {
  json list = json::array();
  for (const Component& component : components) list.push_back(component_json(component));
  return list;
}

std::vector<Component> components_from_json(const json& list) {
  std::vector<Component> components;
  for (const json& value : list) components.push_back(component_from_json(value));
  return components;
}

/// The parts that identity and configuration share.
json common_json(const RunSpec& spec) {
  return {{"dataset", component_json(spec.dataset)},
          {"model", component_json(spec.model)},
          {"methods", components_json(spec.methods)},
          {"inherited_methods", components_json(spec.inherited_methods)},
          {"task", component_json(spec.task)},
          {"optimizer", component_json(spec.optimizer)},
          {"schedule", component_json(spec.schedule)},
          {"augmentation", component_json(spec.augmentation)},
          {"training", spec.training.to_json()},
          {"init_sha256", spec.init_sha256}};
}

}  // namespace

std::int64_t RunSpec::epochs() const { return training.find("epochs")->as_int(); }

std::int64_t RunSpec::global_batch() const { return training.find("global_batch")->as_int(); }

json RunSpec::to_json() const {
  json spec = common_json(*this);
  spec["seed"] = seed;
  json list = json::array();
  for (const Parent& parent : parents) {
    list.push_back({{"role", parent.role}, {"run", parent.run_id}, {"config", parent.config_hash}});
  }
  spec["parents"] = std::move(list);
  return spec;
}

RunSpec RunSpec::from_json(const json& value) {
  try {
    RunSpec spec;
    spec.dataset = component_from_json(value.at("dataset"));
    spec.model = component_from_json(value.at("model"));
    spec.methods = components_from_json(value.at("methods"));
    spec.inherited_methods = components_from_json(value.at("inherited_methods"));
    spec.task = component_from_json(value.at("task"));
    spec.optimizer = component_from_json(value.at("optimizer"));
    spec.schedule = component_from_json(value.at("schedule"));
    spec.augmentation = component_from_json(value.at("augmentation"));
    spec.training = Value::from_json(value.at("training"));
    spec.init_sha256 = value.at("init_sha256").get<std::string>();
    spec.seed = value.at("seed").get<std::uint64_t>();
    for (const json& parent : value.at("parents")) {
      spec.parents.push_back({parent.at("role").get<std::string>(),
                              parent.at("run").get<std::string>(),
                              parent.at("config").get<std::string>()});
    }
    return spec;
  } catch (const json::exception& error) {
    throw SpecError(cat("not a resolved run spec: ", error.what()));
  }
}

std::string RunSpec::canonical() const { return to_json().dump(); }

std::string RunSpec::id() const { return hash128_hex(canonical()); }

json RunSpec::config_json() const {
  json config = common_json(*this);
  json list = json::array();
  for (const Parent& parent : parents) {
    list.push_back({{"role", parent.role}, {"config", parent.config_hash}});
  }
  config["parents"] = std::move(list);
  return config;
}

std::string RunSpec::config_hash() const { return hash128_hex(config_json().dump()); }

const Parent* RunSpec::parent(std::string_view role) const {
  for (const Parent& candidate : parents) {
    if (candidate.role == role) return &candidate;
  }
  return nullptr;
}

}  // namespace ablate
