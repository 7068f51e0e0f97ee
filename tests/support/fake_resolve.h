#pragma once

#include <vector>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/run_spec.h"

namespace ablate::test {

// How the stand-in for ablate-train resolves drafts: it believes everything but a key "typo".

inline Component fake_component(const Value& spec, const char* key) {
  const Value* table = spec.find(key);
  Component result{key, 1, Value()};
  if (table == nullptr) return result;
  result.name = table->find("name")->as_string();
  result.params = *table;
  return result;
}

/// A number of the fake model's settings.
inline std::int64_t fake_setting(const RunSpec& spec, const char* key, std::int64_t fallback) {
  const Value* value = spec.model.params.find(key);
  return value == nullptr ? fallback : value->as_int();
}

/// The spec of a draft; parents are among `earlier`.
inline RunSpec fake_resolved_spec(const nlohmann::json& draft,
                                  const std::vector<RunSpec>& earlier) {
  using nlohmann::json;
  const Value value = Value::from_annotated_json(draft.at("spec"));
  for (const auto& [key, entry] : value.as_table()) {
    if (key == "typo") throw SpecError(cat(entry.origin().str(), ": unknown key \"typo\""));
  }
  RunSpec spec;
  spec.dataset = fake_component(value, "dataset");
  spec.model = fake_component(value, "model");
  spec.task = fake_component(value, "task");
  spec.optimizer = fake_component(value, "optimizer");
  spec.schedule = fake_component(value, "schedule");
  spec.augmentation = fake_component(value, "augmentation");
  spec.training["epochs"] = value.find("epochs") ? *value.find("epochs") : Value(1);
  spec.training["global_batch"] = Value(8);
  if (const Value* precision = value.find("precision")) spec.training["precision"] = *precision;
  spec.seed = static_cast<std::uint64_t>(value.find("seed")->as_int());
  if (const Value* methods = value.find("methods")) {
    for (const Value& method : methods->as_array()) {
      spec.methods.push_back({method.find("name")->as_string(), 1, method});
    }
  }
  for (const json& parent : draft.at("parents")) {
    const RunSpec& from = earlier.at(parent.at("draft").get<std::size_t>());
    spec.parents.push_back({parent.at("role").get<std::string>(), from.id(), from.config_hash()});
    spec.inherited_methods = from.inherited_methods;
    spec.inherited_methods.insert(spec.inherited_methods.end(), from.methods.begin(),
                                  from.methods.end());
  }
  return spec;
}

/// What `resolve` says of a spec.
inline nlohmann::json fake_resolution(const RunSpec& spec) {
  using nlohmann::json;
  json methods = json::array(), parents = json::array();
  for (const Component& method : spec.inherited_methods) {
    methods.push_back({{"name", method.name}, {"origin", "parent"}});
  }
  for (const Component& method : spec.methods) {
    methods.push_back({{"name", method.name}, {"origin", "own"}});
  }
  for (const Parent& parent : spec.parents) {
    parents.push_back({{"role", parent.role}, {"id", parent.run_id}});
  }
  const std::int64_t steps = fake_setting(spec, "steps", 10);
  return {{"id", spec.id()},
          {"spec", spec.to_json()},
          {"config_hash", spec.config_hash()},
          {"config", spec.config_json()},
          {"methods", methods},
          {"parents", parents},
          {"dataset",
           {{"name", spec.dataset.name},
            {"split", "test"},
            {"train_size", 80},
            {"test_size", 16},
            {"classes", 2}}},
          {"steps_per_epoch", 10},
          {"total_steps", steps},
          {"images_seen", steps * 8},
          {"base_params", 1'000'000},
          {"base_macs", 2'000'000'000},
          {"semantics_notes", json::array()}};
}

}  // namespace ablate::test
