#include <deque>
#include <iostream>
#include <iterator>
#include <map>
#include <optional>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "methods/method.h"
#include "runner/core/error.h"
#include "runner/measure/mac_counter.h"
#include "runner/train/finals.h"
#include "runner/train/teacher.h"
#include "runner/worker/data_options.h"
#include "runner/worker/verb.h"

namespace ablate::worker::resolve {
namespace {

using nlohmann::json;

json methods_json(const RunSpec& spec) {
  json list = json::array();
  for (const Component& method : spec.inherited_methods) {
    list.push_back({{"name", method.name}, {"origin", "parent"}});
  }
  for (const Component& method : spec.methods) {
    list.push_back({{"name", method.name}, {"origin", "own"}});
  }
  return list;
}

/// Labels that must reach tables: which formulas are ours.
json notes_json(const RunSpec& spec) {
  json notes = json::array();
  for (const auto* methods : {&spec.inherited_methods, &spec.methods}) {
    for (const Component& method : *methods) {
      const std::string_view note = Registry<MethodInfo>::get(method.name).reconstruction;
      if (!note.empty()) notes.push_back(cat(method.name, ": ", note));
    }
  }
  return notes;
}

/// Cost of base models, before any method; each is built and run once.
class BaseCosts {
 public:
  const ModelCost& of(const Component& model_part, std::int64_t classes) {
    const Structure structure{.model = model_part, .classes = classes, .bn_group = 0, .edits = {}};
    const auto [place, is_new] = costs_.try_emplace(structure.to_json().dump());
    if (is_new) {
      const auto model = build_base_model(structure);
      const at::NoGradGuard no_grad;
      // Costs do not depend on values, and zeros are the quickest to get and to compute with.
      for (at::Tensor& parameter : model->parameters()) parameter.zero_();
      place->second = measure_cost(*model);
    }
    return place->second;
  }

 private:
  std::map<std::string, ModelCost> costs_;
};

json answer_json(const ResolvedRun& run, const ModelCost& base, std::int64_t teacher_macs) {
  const RunSpec& spec = run.spec;
  json parents = json::array();
  for (const Parent& parent : spec.parents) {
    parents.push_back({{"role", parent.role}, {"id", parent.run_id}});
  }
  return {{"id", spec.id()},
          {"spec", spec.to_json()},
          {"config_hash", spec.config_hash()},
          {"config", spec.config_json()},
          {"methods", methods_json(spec)},
          {"parents", std::move(parents)},
          {"dataset",
           {{"name", spec.dataset.name},
            {"split", "test"},
            {"train_size", run.train_size},
            {"test_size", run.test_size},
            {"classes", run.classes}}},
          {"steps_per_epoch", run.steps_per_epoch},
          {"total_steps", run.total_steps},
          {"images_seen", run.images_seen},
          {"init_file", run.init_file.string()},
          {"teacher_file", run.teacher_file.string()},
          {"base_params", base.parameters},
          {"base_macs", base.macs},
          {"teacher_macs", teacher_macs},
          {"semantics_notes", notes_json(spec)}};
}

/// Resolves drafts in order; a child of a draft that failed fails with its message, so that a
/// reader who drops repetitions sees each mistake once.
class BatchResolver {
 public:
  explicit BatchResolver(DataRoots roots) : roots_(std::move(roots)) {}

  json resolve(const json& draft) {
    resolved_.emplace_back();
    errors_.emplace_back();
    try {
      std::vector<DraftParent> parents;
      for (const json& parent : draft.at("parents")) {
        const auto index = parent.at("draft").get<std::size_t>();
        if (!resolved_.at(index)) return fail(errors_[index]);
        parents.push_back({parent.at("role").get<std::string>(), &*resolved_[index]});
      }
      resolved_.back() = resolve_run(Value::from_annotated_json(draft.at("spec")), parents, roots_,
                                     draft.value("ranks", 1), &opened_);
      const ResolvedRun& run = *resolved_.back();
      return answer_json(run, costs_.of(run.spec.model, run.classes), teacher_macs(run, parents));
    } catch (const Error& error) {
      return fail(error.what());
    }
  }

 private:
  /// Of one image through the teacher as it was before any method; 0 without one.
  std::int64_t teacher_macs(const ResolvedRun& run, const std::vector<DraftParent>& parents) {
    for (const DraftParent& parent : parents) {
      if (parent.role == "teacher") return costs_.of(parent.run->spec.model, run.classes).macs;
    }
    const auto file = teacher_file_of(run.spec);
    return file ? costs_.of(file->model, run.classes).macs : 0;
  }

  json fail(const std::string& message) {
    errors_.back() = message;
    return {{"error", message}};
  }

  DataRoots roots_;
  OpenedDatasets opened_;
  BaseCosts costs_;
  std::deque<std::optional<ResolvedRun>> resolved_;  // addresses stay
  std::vector<std::string> errors_;                  // of drafts that could not be resolved
};

int resolve_drafts(const DataRoots& roots) {
  const std::string text(std::istreambuf_iterator<char>(std::cin), {});
  const json request = json::parse(text, nullptr, false);
  if (request.is_discarded() || !request.contains("drafts")) {
    throw SpecError("resolve: standard input is no JSON object with \"drafts\"");
  }
  BatchResolver resolver(roots);
  json runs = json::array();
  for (const json& draft : request["drafts"]) runs.push_back(resolver.resolve(draft));
  std::cout << json{{"runs", std::move(runs)}}.dump() << "\n";
  return static_cast<int>(ExitCode::Done);
}

const Registry<Verb>::Add added{{
    .name = "resolve",
    .summary = "Drafts of runs (JSON, standard input) to resolved specs or errors (JSON)",
    .examples = "  ablate-train resolve --data cifar100=DIR < drafts.json > resolved.json\n",
    .add = [](CLI::App& app) -> std::function<int()> {
      auto data = std::make_shared<std::vector<std::string>>();
      add_data_option(app, *data);
      return [data] { return resolve_drafts(parse_data_roots(*data)); };
    },
}};

}  // namespace
}  // namespace ablate::worker::resolve
