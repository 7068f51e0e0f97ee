#include <iostream>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "datasets/dataset.h"
#include "datasets/recipe.h"
#include "methods/method_stack.h"
#include "runner/core/build_info.h"
#include "runner/core/error.h"
#include "runner/core/schedule.h"
#include "runner/train/distillation.h"
#include "runner/train/optimizer.h"
#include "runner/train/run_model.h"
#include "runner/train/task.h"
#include "runner/train/training_options.h"
#include "runner/worker/verb.h"

namespace ablate::worker::describe {
namespace {

using nlohmann::json;

json help_json(const Params& params) {
  json list = json::array();
  for (const ParamHelp& entry : params.help()) {
    list.push_back({{"key", entry.key},
                    {"type", entry.type},
                    {"default", entry.default_value},
                    {"bounds", entry.bounds},
                    {"help", entry.help}});
  }
  return list;
}

/// The settings that `read` asks for, given `example` settings where some are required.
template <typename Read>
json settings_of(const Value& example, Read read) {
  Params params(example, "example");
  try {
    read(params);
  } catch (const SpecError&) {
    // A required setting ends the reading; what was asked before it is still worth showing.
  }
  return help_json(params);
}

std::string_view phase_name(Phase phase) {
  switch (phase) {
    case Phase::Architecture:
      return "architecture";
    case Phase::LayerAttention:
      return "layer attention";
    case Phase::AttentionRemoval:
      return "attention removal";
    case Phase::Pruning:
      return "pruning";
    case Phase::TokenReduction:
      return "token reduction";
  }
  return "";
}

json slots_json(const std::vector<Slot>& slots) {
  json names = json::array();
  for (const Slot slot : slots) names.push_back(slot_name(slot));
  return names;
}

json describe_methods() {
  json list = json::array();
  for (const std::string& name : Registry<MethodInfo>::names()) {
    const auto& info = Registry<MethodInfo>::get(name);
    Value example = parse_toml(info.example().params, name);
    example.as_table().erase("name");
    list.push_back({{"name", name},
                    {"summary", info.summary},
                    {"paper", info.paper},
                    {"phase", phase_name(info.phase)},
                    {"needs", slots_json(info.needs)},
                    {"conflicts", info.conflicts},
                    {"reconstruction", info.reconstruction},
                    {"params", settings_of(example, [&](Params& p) { info.make(p); })}});
  }
  return list;
}

/// Each method with those whose names come later: why they cannot be combined, or nothing.
json describe_pairs() {
  const std::vector<std::string> names = Registry<MethodInfo>::names();
  json pairs = json::object();
  for (std::size_t i = 0; i < names.size(); ++i) {
    json& others = pairs[names[i]] = json::object();
    for (std::size_t j = i + 1; j < names.size(); ++j) {
      others[names[j]] =
          pair_conflict(Registry<MethodInfo>::get(names[i]), Registry<MethodInfo>::get(names[j]));
    }
  }
  return pairs;
}

json describe_models() {
  json list = json::array();
  for (const std::string& name : Registry<ModelInfo>::names()) {
    const auto& info = Registry<ModelInfo>::get(name);
    list.push_back({{"name", name},
                    {"summary", info.summary},
                    {"image_size", info.image_size},
                    {"offers", slots_json(info.offers)},
                    {"params", settings_of(Value(), [&](Params& p) { info.configure(name, p); })}});
  }
  return list;
}

json describe_datasets() {
  json list = json::array();
  for (const std::string& name : Registry<DatasetInfo>::names()) {
    const auto& info = Registry<DatasetInfo>::get(name);
    list.push_back({{"name", name},
                    {"summary", info.summary},
                    {"needs_root", info.needs_root},
                    {"params", settings_of(Value(), [&](Params& p) { info.configure(p); })}});
  }
  return list;
}

/// `more` is what making one takes beside its settings.
template <typename Info, typename... More>
json describe_made(const More&... more) {
  json list = json::array();
  for (const std::string& name : Registry<Info>::names()) {
    const auto& info = Registry<Info>::get(name);
    list.push_back({{"name", name},
                    {"summary", info.summary},
                    {"params", settings_of(Value(), [&](Params& p) { info.make(p, more...); })}});
  }
  return list;
}

template <typename Read>
json describe_named(const std::vector<std::string>& names, Read read) {
  json list = json::array();
  for (const std::string& name : names) {
    list.push_back(
        {{"name", name}, {"params", settings_of(Value(), [&](Params& p) { read(name, p); })}});
  }
  return list;
}

/// What stands beside the registered parts.
json describe_run() {
  const Value run = Value::Table{{"epochs", 1}};
  return {{{"name", "run"},
           {"summary", "settings of a run beside its parts"},
           {"params", settings_of(run, [](Params& p) { TrainingOptions::read(p); })}},
          {{"name", "init"},
           {"summary", "start weights: init = { weights = FILE, ... }"},
           {"params", settings_of(Value(), [](Params& p) { read_load_options(p); })}},
          {{"name", "distillation"},
           {"summary",
            "with teacher = \"LABEL\" in the variant, or here teacher = { model = { name "
            "= ... }, weights = FILE }"},
           {"params", settings_of(Value(), [](Params& p) { Distillation::Options::read(p); })}}};
}

int describe() {
  const BuildInfo& build = build_info();
  const json text = {
      {"run", describe_run()},
      {"methods", describe_methods()},
      {"pairs", describe_pairs()},
      {"models", describe_models()},
      {"datasets", describe_datasets()},
      {"tasks", describe_made<TaskInfo>(DatasetFacts())},
      {"optimizers", describe_made<OptimizerInfo>()},
      {"schedules", describe_named(schedule_names(), [](const std::string& name,
                                                        Params& p) { read_schedule(name, p); })},
      {"augmentations",
       describe_named(augmentation_names(),
                      [](const std::string& name, Params& p) { read_augmentation(name, p, 224); })},
      {"build",
       {{"version", build.version},
        {"revision", build.revision},
        {"torch", build.torch},
        {"cuda", build.cuda},
        {"has_cuda", ABLATE_HAS_CUDA != 0},
        {"has_nccl", ABLATE_HAS_NCCL != 0}}}};
  std::cout << text.dump(1) << "\n";
  return static_cast<int>(ExitCode::Done);
}

const Registry<Verb>::Add added{{
    .name = "describe",
    .summary = "Methods, models, data sets and their settings as JSON",
    .examples = "  ablate-train describe | jq '.methods[].name'\n",
    .add = [](CLI::App&) -> std::function<int()> { return describe; },
}};

}  // namespace
}  // namespace ablate::worker::describe
