#include "runner/train/spec_resolver.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "datasets/dataset.h"
#include "datasets/recipe.h"
#include "methods/method_stack.h"
#include "methods/models/batch_norm.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/schedule.h"
#include "runner/train/distillation.h"
#include "runner/train/finals.h"
#include "runner/train/optimizer.h"
#include "runner/train/run_model.h"
#include "runner/train/spec_checks.h"
#include "runner/train/spec_part.h"
#include "runner/train/task.h"
#include "runner/train/teacher.h"
#include "runner/train/training_options.h"

namespace ablate {
namespace {

class Resolver {
 public:
  Resolver(const Value& draft, const std::vector<DraftParent>& parents, const DataRoots& roots,
           OpenedDatasets& opened)
      : run_(draft, "run"), parents_(parents), roots_(roots), opened_(opened) {}

  ResolvedRun resolve(int ranks) {
    TrainingOptions options = TrainingOptions::read(run_);
    ranks_ = ranks;
    result_.spec.seed = static_cast<std::uint64_t>(run_.integer(
        "seed", 0, 0, std::numeric_limits<std::int64_t>::max(), "every random number hangs on it"));
    check_slices(run_, options, ranks_);
    resolve_dataset();
    check_size(options);
    settle_length(options);
    resolve_model(options);
    resolve_methods(options);
    resolve_augmentation(options);
    resolve_task();
    resolve_optimizer(options);
    resolve_distillation();
    resolve_init(options);
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

  /// A part whose registration is looked up by name: where the key is missing, that is said.
  NamedPart required_part(std::string_view key, std::string_view help) {
    const Value* raw = run_.raw(key, help);
    if (!raw) {
      run_.fail(key, cat("is required: ", help, "; accepted: ", key, " = { name = \"...\", ... }"));
    }
    return named_part(raw, key, "");
  }

  void resolve_dataset() {
    const NamedPart part = required_part("dataset", "data set and its settings");
    const auto& info = Registry<DatasetInfo>::get(part.name, part.where);
    DatasetOpener open;
    result_.spec.dataset = resolve_part(part, "dataset", info.semantics, [&](Params& params) {
      holdout_ = params.integer("holdout", 0, 0, std::numeric_limits<std::int64_t>::max(),
                                "training samples set aside for decisions");
      open = info.configure(params);
    });
    const auto root = roots_.find(part.name);
    if (info.needs_root && root == roots_.end()) {
      throw SpecError(cat(part.where, ": where is data set \"", part.name, "\"? Give --data ",
                          part.name, "=DIR"));
    }
    DatasetSplits splits =
        open_once(open, info.needs_root ? root->second : std::filesystem::path());
    check_at(part.place_of("holdout"),
             [&] { splits = carve_holdout(std::move(splits), holdout_); });
    result_.train_size = splits.train->size();
    result_.test_size = splits.test->size();
    result_.classes = splits.train->facts().classes;
    facts_ = splits.train->facts();
  }

  DatasetSplits open_once(const DatasetOpener& open, const std::filesystem::path& root) {
    const Component& part = result_.spec.dataset;
    const std::string key = cat(part.name, " ", part.params.to_json().dump(), " ", root.string());
    const auto [place, is_new] = opened_.try_emplace(key);
    if (!is_new) return place->second;
    try {
      return place->second = open(root);
    } catch (...) {
      opened_.erase(place);
      throw;
    }
  }

  void check_size(const TrainingOptions& options) {
    result_.steps_per_epoch = result_.train_size / options.global_batch;
    if (result_.steps_per_epoch > 0) return;
    run_.fail("global_batch", cat(options.global_batch, " images are more than the training set (",
                                  result_.train_size, ")"));
  }

  /// Epochs that are begun in so many steps: what methods plan by.
  void settle_length(TrainingOptions& options) {
    if (options.steps > 0) {
      if (run_.has("epochs")) {
        run_.fail("steps", "gives the length of the run, as epochs does; leave one of them out");
      }
      options.epochs = (options.steps + result_.steps_per_epoch - 1) / result_.steps_per_epoch;
      run_.record("epochs", options.epochs);
    }
    result_.total_steps = options.length(result_.steps_per_epoch).total_steps;
  }

  void resolve_model(const TrainingOptions& options) {
    const NamedPart part = required_part("model", "model and its settings");
    model_ = &Registry<ModelInfo>::get(part.name, part.where);
    result_.spec.model = resolve_part(part, "model", model_->semantics, [&](Params& params) {
      model_->configure(model_->name, params);
    });
    model_where_ = part.where;
    check_density(part.where, "model", part.name, model_->dense, result_.spec.dataset.name,
                  facts_.dense);
    if (const ResolvedRun* init = parent("init")) {
      check_parent_model(part.where, result_.spec.model, init->spec.model, result_.classes);
    }
    if (!model_->batch_norm) return;
    check_at(run_.where("bn_group"),
             [&] { groups_are_local(ranks_, options.bn_group, options.global_batch, 0); });
  }

  void resolve_methods(const TrainingOptions& options) {
    std::vector<std::pair<std::string, std::unique_ptr<Method>>> made;  // by place
    if (const Value* list = run_.raw("methods", "efficiency methods, in any order")) {
      for (const Value& element : list->as_array()) {
        const NamedPart part = named_part(&element, "methods", "");
        const auto& info = Registry<MethodInfo>::get(part.name, part.where);
        made.emplace_back(part.where, nullptr);
        result_.spec.methods.push_back(
            resolve_part(part, "methods", info.semantics,
                         [&](Params& params) { made.back().second = info.make(params); }));
        check_decision_data(part.place_of("decide_on"), result_.spec.methods.back(), holdout_);
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
    if (made.empty()) return;
    const auto base =
        build_base_model({.model = result_.spec.model, .classes = result_.classes, .edits = {}});
    const RunOutline outline{options.length(result_.steps_per_epoch), *base};
    for (const auto& [place, method] : made) check_at(place, [&] { method->check(outline); });
  }

  void resolve_augmentation(const TrainingOptions& options) {
    const NamedPart part = named_part(run_.raw("augmentation", "training transforms"),
                                      "augmentation", facts_.dense ? kDenseAugmentation : "none");
    if (std::ranges::find(augmentation_names(), part.name) == augmentation_names().end()) {
      throw SpecError(cat(part.where, ": unknown augmentation \"", part.name, "\"",
                          suggestion(part.name, augmentation_names())));
    }
    check_density(part.where, "augmentation", part.name, part.name == kDenseAugmentation,
                  result_.spec.dataset.name, facts_.dense);
    const Value* size = result_.spec.model.params.find("image_size");
    const std::int64_t model_size = size ? size->as_int() : model_->image_size;
    AugmentRecipe recipe;
    result_.spec.augmentation =
        resolve_part(part, "augmentation", kAugmentSemantics, [&](Params& params) {
          recipe = read_augmentation(part.name, params, static_cast<int>(model_size));
        });
    check_image_size(part.place_of("image_size"), recipe.image_size, model_size);
    if (recipe.mixing.enabled()) check_mix_groups(run_, options, ranks_);
  }

  void resolve_task() {
    const NamedPart part = named_part(run_.raw("task", "loss and metrics"), "task",
                                      facts_.dense ? "segmentation" : "classification");
    const auto& info = Registry<TaskInfo>::get(part.name, part.where);
    check_density(part.where, "task", part.name, info.dense, result_.spec.dataset.name,
                  facts_.dense);
    result_.spec.task = resolve_part(part, "task", info.semantics,
                                     [&](Params& params) { info.make(params, facts_); });
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
          check_at(decay.where,
                   [&] { Schedule(settings, base_lr, options.length(result_.steps_per_epoch)); });
        });
  }

  void check_heads(const TrainingOptions& options, bool trained) {
    check_distillation_head(model_where_, *model_, result_.spec.model, options.epochs,
                            trained || taught_);
  }

  void resolve_init(const TrainingOptions& options) {
    const ResolvedRun* source = parent("init");
    check_start_weights(run_, options, source ? &source->spec : nullptr);
    const Value* init = run_.raw("init", "start weights: { weights = FILE }");
    if (!init) return check_heads(options, source != nullptr);
    if (source) run_.fail("init", "a run that starts from a parent has no other weights");
    Params params(*init, "init");
    const std::filesystem::path file =
        params.required_text("weights", "safetensors file with timm names");
    const LoadOptions loading = read_load_options(params);
    params.finish();
    check_heads(options, !loading.reset_head);
    if (!std::filesystem::is_regular_file(file)) {
      throw SpecError(cat(params.where("weights"), ": no file ", file.string()));
    }
    result_.init_file = std::filesystem::absolute(file);
    result_.spec.init_sha256 = sha256_hex(file);
    Value::Table settings = params.resolved().as_table();
    settings.erase("weights");
    run_.record("init", std::move(settings));
  }

  /// The teacher is another run, or weights of a named model.
  void resolve_distillation() {
    const Value* given = run_.raw("distillation", "how to learn from the teacher");
    const ResolvedRun* run = parent("teacher");
    if (!given && !run) return;
    if (facts_.dense) run_.fail("distillation", "a teacher of pixels; accepted: classification");
    if (run) check_teacher_images(run_, result_.spec, run->spec);
    const Value none;
    Params params(given ? *given : none, "distillation");
    Distillation::Options::read(params);
    const std::int64_t side = result_.spec.augmentation.params.find("image_size")->as_int();
    const auto file = resolve_teacher_file(params, side);
    params.finish();
    if (file && run) params.fail("teacher", "the variant has teacher = \"LABEL\", too; keep one");
    if (!file && !run) {
      run_.fail("distillation",
                "there is no teacher; add teacher = \"LABEL\" to the variant, or teacher = "
                "{ model = { name = \"...\" }, weights = FILE } here");
    }
    if (file) result_.teacher_file = file->file;
    taught_ = true;
    run_.record("distillation", params.resolved());
  }

  void resolve_parents() {
    for (const DraftParent& parent : parents_) {
      if (parent.run->classes != result_.classes) {
        throw SpecError(cat(run_.where(), ": the ", parent.role, " run has ", parent.run->classes,
                            " classes, this data set ", result_.classes));
      }
      result_.spec.parents.push_back(
          {parent.role, parent.run->spec.id(), parent.run->spec.config_hash()});
    }
    std::ranges::sort(result_.spec.parents, {}, &Parent::role);
  }

  void count_images(const TrainingOptions& options) {
    result_.images_seen = result_.total_steps * options.global_batch;
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
  OpenedDatasets& opened_;
  int ranks_ = 1;
  std::int64_t holdout_ = 0;
  const ModelInfo* model_ = nullptr;
  std::string model_where_;
  DatasetFacts facts_;
  bool taught_ = false;
  ResolvedRun result_;
};

}  // namespace

ResolvedRun resolve_run(const Value& draft, const std::vector<DraftParent>& parents,
                        const DataRoots& roots, int ranks, OpenedDatasets* opened) {
  OpenedDatasets own;
  return Resolver(draft, parents, roots, opened ? *opened : own).resolve(ranks);
}

}  // namespace ablate
