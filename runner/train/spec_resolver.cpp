#include "runner/train/spec_resolver.h"

#include <algorithm>
#include <array>

#include "datasets/dataset.h"
#include "datasets/recipe.h"
#include "methods/method_stack.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/schedule.h"
#include "runner/train/distillation.h"
#include "runner/train/optimizer.h"
#include "runner/train/task.h"
#include "runner/train/training_options.h"

namespace ablate {
namespace {

/// A part of a run table as written: its name and a copy of its settings without the name.
struct NamedPart {
  std::string name;
  Value settings;
  std::string where;  // "file:line:column"
};

NamedPart named_part(const Value* raw, std::string_view key, std::string_view default_name) {
  if (!raw) return {std::string(default_name), Value(), std::string(key)};
  if (raw->is_string()) return {raw->as_string(), Value(), raw->origin().str()};
  const Value* name = raw->find("name");
  if (!name && default_name.empty()) {
    throw SpecError(
        cat(raw->origin().str(), ": ", key, " needs a name: ", key, " = { name = \"...\", ... }"));
  }
  NamedPart part{name ? name->as_string() : std::string(default_name), *raw,
                 (name ? name : raw)->origin().str()};
  part.settings.as_table().erase("name");
  return part;
}

/// Lets `configure(params)` read the part's settings and returns them with every default written
/// out.
template <typename Configure>
Component resolve_part(const NamedPart& part, std::string_view key, int semantics,
                       Configure configure) {
  Params params(part.settings, cat(key, " \"", part.name, "\""));
  configure(params);
  params.finish();
  return {part.name, semantics, params.resolved()};
}

class Resolver {
 public:
  Resolver(const Value& draft, const std::vector<DraftParent>& parents, const DataRoots& roots)
      : run_(draft, "run"), parents_(parents), roots_(roots) {}

  ResolvedRun resolve(int ranks) {
    const TrainingOptions options = TrainingOptions::read(run_);
    result_.spec.seed = static_cast<std::uint64_t>(run_.integer(
        "seed", 0, 0, std::numeric_limits<std::int64_t>::max(), "every random number hangs on it"));
    check_ranks(options, ranks);
    resolve_dataset();
    resolve_model();
    resolve_methods();
    resolve_augmentation();
    resolve_task();
    resolve_optimizer(options);
    resolve_init();
    resolve_parents();
    run_.finish();
    count_images(options);
    keep_training_settings();
    return std::move(result_);
  }

 private:
  const ResolvedRun* parent(std::string_view role) const {
    for (const DraftParent& parent : parents_) {
      if (parent.role == role) return parent.run;
    }
    return nullptr;
  }

  void check_ranks(const TrainingOptions& options, int ranks) const {
    if (options.global_batch % ranks == 0) return;
    std::int64_t lower = options.global_batch;
    while (lower % ranks != 0) --lower;
    run_.fail("global_batch",
              cat(options.global_batch, " images do not divide among ", ranks,
                  " ranks; use global_batch = ", std::max<std::int64_t>(lower, ranks), " or ",
                  lower + ranks, ", or another number of ranks"));
  }

  void resolve_dataset() {
    const NamedPart part =
        named_part(run_.raw("dataset", "data set and its settings"), "dataset", "");
    const auto& info = Registry<DatasetInfo>::get(part.name, part.where);
    std::int64_t holdout = 0;
    DatasetOpener open;
    result_.spec.dataset = resolve_part(part, "dataset", info.semantics, [&](Params& params) {
      holdout = params.integer("holdout", 0, 0, std::numeric_limits<std::int64_t>::max(),
                               "training samples set aside for decisions");
      open = info.configure(params);
    });
    const auto root = roots_.find(part.name);
    if (info.needs_root && root == roots_.end()) {
      throw SpecError(cat(part.where, ": where is data set \"", part.name, "\"? Give --data ",
                          part.name, "=DIR"));
    }
    const DatasetSplits splits =
        carve_holdout(open(info.needs_root ? root->second : std::filesystem::path()), holdout);
    result_.train_size = splits.train->size();
    result_.test_size = splits.test->size();
    result_.classes = splits.train->facts().classes;
  }

  void resolve_model() {
    const NamedPart part = named_part(run_.raw("model", "model and its settings"), "model", "");
    model_ = &Registry<ModelInfo>::get(part.name, part.where);
    result_.spec.model = resolve_part(part, "model", model_->semantics, [&](Params& params) {
      model_->configure(model_->name, params);
    });
    const ResolvedRun* init = parent("init");
    if (init && !(init->spec.model == result_.spec.model)) {
      throw SpecError(cat(part.where, ": the parent run is a ", init->spec.model.name,
                          " with other settings; a run made from it has the same model (leave the "
                          "key out to inherit it from [run])"));
    }
  }

  void resolve_methods() {
    if (const Value* list = run_.raw("methods", "efficiency methods, in any order")) {
      for (const Value& element : list->as_array()) {
        const NamedPart part = named_part(&element, "methods", "");
        const auto& info = Registry<MethodInfo>::get(part.name, part.where);
        result_.spec.methods.push_back(resolve_part(part, "methods", info.semantics,
                                                    [&](Params& params) { info.make(params); }));
      }
    }
    sort_methods(result_.spec.methods);
    if (const ResolvedRun* init = parent("init")) {
      result_.spec.inherited_methods = init->spec.inherited_methods;
      std::ranges::copy(init->spec.methods, std::back_inserter(result_.spec.inherited_methods));
    }
    std::vector<Component> all = result_.spec.inherited_methods;
    std::ranges::copy(result_.spec.methods, std::back_inserter(all));
    check_methods(*model_, all, run_.where("methods"));
  }

  void resolve_augmentation() {
    const NamedPart part =
        named_part(run_.raw("augmentation", "training transforms"), "augmentation", "none");
    if (std::ranges::find(augmentation_names(), part.name) == augmentation_names().end()) {
      throw SpecError(cat(part.where, ": unknown augmentation \"", part.name, "\"",
                          suggestion(part.name, augmentation_names())));
    }
    const Value* size = result_.spec.model.params.find("image_size");
    result_.spec.augmentation =
        resolve_part(part, "augmentation", kAugmentSemantics, [&](Params& params) {
          const auto image_size = size ? size->as_int() : model_->image_size;
          read_augmentation(part.name, params, static_cast<int>(image_size));
        });
  }

  void resolve_task() {
    const NamedPart part =
        named_part(run_.raw("task", "loss and metrics"), "task", "classification");
    const auto& info = Registry<TaskInfo>::get(part.name, part.where);
    result_.spec.task =
        resolve_part(part, "task", info.semantics, [&](Params& params) { info.make(params); });
  }

  void resolve_optimizer(const TrainingOptions& options) {
    const NamedPart part =
        named_part(run_.raw("optimizer", "update rule and its settings"), "optimizer", "adamw");
    const auto& info = Registry<OptimizerInfo>::get(part.name, part.where);
    double base_lr = 0;
    result_.spec.optimizer = resolve_part(part, "optimizer", info.semantics, [&](Params& params) {
      base_lr = read_base_lr(params);
      info.make(params);
    });
    const NamedPart decay =
        named_part(run_.raw("schedule", "course of the learning rate"), "schedule", "cosine");
    if (std::ranges::find(schedule_names(), decay.name) == schedule_names().end()) {
      throw SpecError(cat(decay.where, ": unknown schedule \"", decay.name, "\"",
                          suggestion(decay.name, schedule_names())));
    }
    result_.spec.schedule =
        resolve_part(decay, "schedule", kScheduleSemantics, [&](Params& params) {
          const ScheduleSettings settings = read_schedule(decay.name, params);
          // A run without training has no course to check.
          if (options.epochs > 0)
            Schedule(settings, base_lr, RunLength::of_epochs(1, options.epochs));
        });
  }

  void resolve_init() {
    const Value* init = run_.raw("init", "start weights: { weights = FILE }");
    if (!init) return;
    if (parent("init")) run_.fail("init", "a run that starts from a parent has no other weights");
    Params params(*init, "init");
    const std::filesystem::path file =
        params.required_text("weights", "safetensors file with timm names");
    const bool reset_head = params.boolean(
        "reset_head", false, "draw a new classifier when the file's has another class count");
    params.finish();
    if (!std::filesystem::is_regular_file(file)) {
      throw SpecError(cat(params.where("weights"), ": no file ", file.string()));
    }
    result_.init_file = std::filesystem::absolute(file);
    result_.spec.init_sha256 = sha256_hex(file);
    run_.record("init", Value::Table{{"reset_head", reset_head}});
  }

  void resolve_parents() {
    const Value* distillation = run_.raw("distillation", "how to learn from the teacher run");
    if (parent("teacher")) {
      const Value none;
      Params params(distillation ? *distillation : none, "distillation");
      Distillation::Options::read(params);
      params.finish();
      run_.record("distillation", params.resolved());
    } else if (distillation) {
      run_.fail("distillation", "there is no teacher; add teacher = \"LABEL\" to the variant");
    }
    for (const DraftParent& parent : parents_) {
      result_.spec.parents.push_back(
          {parent.role, parent.run->spec.id(), parent.run->spec.config_hash()});
    }
    std::ranges::sort(result_.spec.parents, {}, &Parent::role);
  }

  void count_images(const TrainingOptions& options) {
    result_.steps_per_epoch = result_.train_size / options.global_batch;
    if (options.epochs > 0 && result_.steps_per_epoch == 0) {
      run_.fail("global_batch",
                cat(options.global_batch, " images are more than the training set (",
                    result_.train_size, ")"));
    }
    result_.images_seen = options.epochs * result_.steps_per_epoch * options.global_batch;
    if (const ResolvedRun* init = parent("init")) result_.images_seen += init->images_seen;
  }

  /// What is left of the run table once the registered parts have their own places.
  void keep_training_settings() {
    result_.spec.training = run_.resolved();
    Value::Table& table = result_.spec.training.as_table();
    for (const char* key :
         {"seed", "dataset", "model", "methods", "augmentation", "task", "optimizer", "schedule"}) {
      table.erase(key);
    }
  }

  Params run_;
  const std::vector<DraftParent>& parents_;
  const DataRoots& roots_;
  const ModelInfo* model_ = nullptr;
  ResolvedRun result_;
};

}  // namespace

ResolvedRun resolve_run(const Value& draft, const std::vector<DraftParent>& parents,
                        const DataRoots& roots, int ranks) {
  return Resolver(draft, parents, roots).resolve(ranks);
}

}  // namespace ablate
