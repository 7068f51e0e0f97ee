#include "runner/train/run.h"

#include <chrono>
#include <optional>

#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "methods/models/batch_norm.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/log.h"
#include "runner/core/run_paths.h"
#include "runner/train/drill_steps.h"
#include "runner/train/facts.h"
#include "runner/train/final_numbers.h"
#include "runner/train/outcome.h"
#include "runner/train/run_compute.h"
#include "runner/train/run_data.h"
#include "runner/train/run_model.h"
#include "runner/train/teacher.h"
#include "runner/train/trainer.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

TrainingOptions read_options(const RunSpec& spec) {
  Params params(spec.training, "run");
  return TrainingOptions::read(params);
}

/// Rank 0 looks; the others take its word, or they might see the folder at another moment.
std::optional<Checkpoint> find_checkpoint(const CheckpointStore& store, Communicator& world) {
  std::string path;
  if (world.rank() == 0) path = store.newest_valid().value_or("").string();
  path = world.broadcast(path);
  if (path.empty()) return std::nullopt;
  return CheckpointStore::load(path);
}

/// Why the ranks stopped; one rank may have been told, and all have to say the same.
std::string agreed_reason(const StopSignal& stop, Communicator& world) {
  for (std::string& reason : world.all_gather(stop.reason())) {
    if (!reason.empty()) return std::move(reason);
  }
  return {};
}

/// Everything of one run on one rank.
class Run {
 public:
  Run(const RunSpec& spec, const Environment& environment, Communicator& world, StopSignal& stop);

  Outcome execute();

 private:
  Outcome train();
  void seal_failure(const std::exception& error);
  void record_facts();
  void build_model();
  void make_distillation();
  void make_trainer();
  std::unique_ptr<StepRunner> make_step_runner(StepParts parts);
  void evaluate_all(std::int64_t step);
  void log_evaluation(const std::string& prefix, std::int64_t step, const Evaluation& evaluation);
  Evaluation evaluate_on(const std::shared_ptr<const Dataset>& split);
  bool checkpoint_due(std::int64_t step) const;
  void save_checkpoint(std::int64_t step);
  void check_fence() const;
  void finish();
  void save_finals();
  Structure structure() const {
    return structure_of(spec_, options_, data_.classes(), *model_.surgeon);
  }
  RunLength length() const { return options_.length(data_.steps_per_epoch()); }

  const RunSpec& spec_;
  const Environment& environment_;
  Communicator& world_;
  StopSignal& stop_;

  const TrainingOptions options_;
  RunCompute compute_;
  const RunPaths paths_;
  CheckpointStore checkpoints_;
  std::optional<Checkpoint> resumed_;
  std::int64_t step_;  // optimizer steps done
  RunData data_;
  std::unique_ptr<Task> task_;
  MethodStack methods_;
  SpoolWriter spool_;
  RunLog log_;
  RunModel model_;
  std::unique_ptr<RunContext> context_;
  std::unique_ptr<Distillation> distillation_;
  std::string teacher_sha256_;
  std::unique_ptr<Communicator> bn_communicator_;
  std::optional<Schedule> schedule_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<StepProfile> profile_;
  std::optional<Utilisation> utilisation_;
  std::unique_ptr<Trainer> trainer_;
  Clock::time_point last_checkpoint_ = Clock::now();
};

Run::Run(const RunSpec& spec, const Environment& environment, Communicator& world, StopSignal& stop)
    : spec_(spec),
      environment_(environment),
      world_(world),
      stop_(stop),
      options_(read_options(spec)),
      compute_(environment, options_, world),
      paths_(environment.out, spec.id()),
      checkpoints_(paths_.checkpoints(), environment.keep_checkpoints, [this] { check_fence(); }),
      resumed_(find_checkpoint(checkpoints_, world)),
      step_(resumed_ ? resumed_->step : 0),
      data_(spec, options_, environment, {.rank = world.rank(), .size = world.size()}),
      task_(make_task(spec.task, data_.splits().train->facts())),
      methods_(spec.methods),
      spool_(paths_.spool(environment.attempt, world.rank()), {.run_uid = spec.id(),
                                                               .attempt = environment.attempt,
                                                               .rank = world.rank(),
                                                               .first_step = step_}),
      log_(spool_, world.rank() == 0) {}

Outcome Run::execute() {
  Outcome outcome;
  try {
    outcome = train();
  } catch (const std::exception& error) {
    seal_failure(error);
    throw;
  }
  spool_.outcome(outcome);
  spool_.close();
  // Not earlier: until the outcome is recorded the run may have to come back to its last step.
  if (outcome.state == OutcomeState::Done && log_.main_rank()) checkpoints_.remove_all();
  world_.barrier();  // ranks leave together, behind sealed spools
  return outcome;
}

/// A disk that is full hides no other error.
void Run::seal_failure(const std::exception& error) {
  try {
    Outcome outcome = outcome_of(error);
    outcome.last_step = step_;
    spool_.outcome(outcome);
    spool_.close();
  } catch (const std::exception& unwritten) {
    log_error(cat("the outcome of this attempt is not recorded: ", unwritten.what()));
  }
}

Outcome Run::train() {
  build_model();
  make_distillation();
  record_facts();
  make_trainer();
  resumed_.reset();
  const Trainer::Result result = trainer_->fit(step_);
  Outcome outcome{.last_step = step_, .images_seen = step_ * options_.global_batch};
  if (result == Trainer::Result::Stopped) {
    outcome.state = OutcomeState::Interrupted;
    outcome.detail = agreed_reason(stop_, world_);
    outcome.cause = outcome.detail == "deadline" ? "walltime" : "preempted";
    outcome.exit_code = static_cast<int>(ExitCode::Interrupted);
  } else {
    finish();
  }
  return outcome;
}

void Run::record_facts() {
  const std::int64_t rank_batch = options_.global_batch / world_.size();
  const std::int64_t micro = environment_.micro_batch == 0 ? rank_batch : environment_.micro_batch;
  spool_.facts(FactKind::Machine, machine_facts(environment_.out, compute_.device().str()).dump());
  if (world_.rank() != 0) return;
  spool_.facts(FactKind::Environment, json{{"world_size", world_.size()},
                                           {"micro_batch", micro},
                                           {"grad_accum", rank_batch / micro},
                                           {"threads", environment_.threads},
                                           {"runs_in_process", environment_.runs_in_process},
                                           {"fence", environment_.fence}}
                                          .dump());
  spool_.facts(FactKind::Toolchain, toolchain_facts(compute_.device().str()).dump());
  spool_.facts(FactKind::Data, data_.facts().dump());
  json lineage = json::object();
  if (!model_.init_sha256.empty()) lineage["init"] = model_.init_sha256;
  if (!teacher_sha256_.empty()) lineage["teacher"] = teacher_sha256_;
  if (!lineage.empty()) spool_.facts(FactKind::Lineage, lineage.dump());
  spool_.flush();
}

/// Start model and the methods' surgery; on resume the recorded edits instead.
void Run::build_model() {
  model_ = resumed_ ? make_resumed_model(spec_, options_, *resumed_, data_.classes(),
                                         compute_.dtype(), compute_.device())
                    : make_start_model(spec_, options_, environment_, data_.classes(),
                                       compute_.dtype(), compute_.device(), compute_.ranks());
  const auto visit = [this](DecisionSplit split, std::int64_t samples,
                            const TrainContext::LabelledVisitor& visitor) {
    data_.visit(split, samples, compute_.dtype(), compute_.device(), visitor);
  };
  context_ = std::make_unique<RunContext>(*model_.surgeon, compute_.ranks(), length(),
                                          options_.epochs, spec_.seed, visit, &log_);
  context_->set_step(step_);
  if (resumed_) {
    methods_.load(resumed_->state.at("methods"));
    compute_.load(resumed_->state.at("compute"));
    log_.event(step_, "resumed", {{"step", step_}, {"attempt", environment_.attempt}});
    return;
  }
  methods_.apply(*context_);
  json edits = json::array();
  for (const Edit& edit : model_.surgeon->edits()) {
    edits.push_back(to_json(edit));
    if (log_.main_rank()) log_info(cat("edit: ", describe(edit)));
  }
  if (!edits.empty()) log_.event(step_, "surgery", {{"edits", std::move(edits)}});
}

void Run::make_distillation() {
  std::optional<Teacher> teacher =
      load_teacher(spec_, environment_, data_.classes(), compute_.dtype(), compute_.device());
  if (!teacher) return;
  Params params(*spec_.training.find("distillation"), "distillation");
  teacher_sha256_ = teacher->sha256;
  distillation_ = std::make_unique<Distillation>(Distillation::Options::read(params),
                                                 std::move(teacher->model));
}

void Run::make_trainer() {
  Params optimizer_params(spec_.optimizer.params, cat("optimizer \"", spec_.optimizer.name, "\""));
  const double base_lr = read_base_lr(optimizer_params);
  optimizer_ = Registry<OptimizerInfo>::get(spec_.optimizer.name).make(optimizer_params);
  Params schedule_params(spec_.schedule.params, cat("schedule \"", spec_.schedule.name, "\""));
  schedule_.emplace(read_schedule(spec_.schedule.name, schedule_params), base_lr, length());
  if (Registry<ModelInfo>::get(spec_.model.name).batch_norm) {
    bn_communicator_ = make_group_communicator(compute_.ranks(), options_.bn_group,
                                               options_.global_batch, data_.micro_batch());
  }
  if (!environment_.profile.empty() && log_.main_rank()) {
    profile_ =
        std::make_unique<StepProfile>(environment_.profile, compute_.device().is_cuda(), log_);
  }
  if (options_.fused()) {
    utilisation_.emplace(*model_.surgeon, compute_.device(), "bf16", world_.size());
  }
  trainer_ = std::make_unique<Trainer>(
      Trainer::Parts{.options = options_,
                     .schedule = *schedule_,
                     .task = *task_,
                     .distillation = distillation_.get(),
                     .optimizer = *optimizer_,
                     .methods = methods_,
                     .context = *context_,
                     .data = data_,
                     .log = log_,
                     .stop = stop_,
                     .bn_communicator = bn_communicator_.get(),
                     .profile = profile_.get(),
                     .utilisation = utilisation_ ? &*utilisation_ : nullptr,
                     .make_step_runner =
                         [this](StepParts parts) { return make_step_runner(std::move(parts)); }},
      Trainer::Callbacks{
          .evaluate = [this](std::int64_t step) { evaluate_all(step); },
          .checkpoint_due = [this](std::int64_t step) { return checkpoint_due(step); },
          .save_checkpoint = [this](std::int64_t step) { save_checkpoint(step); }});
  if (resumed_) trainer_->restore(*resumed_);
}

std::unique_ptr<StepRunner> Run::make_step_runner(StepParts parts) {
  ParameterArena& arena = parts.arena;
  std::unique_ptr<StepRunner> steps = compute_.make_step_runner(std::move(parts));
  const std::optional<DrillFault>& fault = environment_.fault;
  const bool due = fault && fault->run == spec_.id() && fault->attempt == environment_.attempt &&
                   fault->rank == world_.rank();
  return due ? make_drill_steps(std::move(steps), arena, *fault) : std::move(steps);
}

Evaluation Run::evaluate_on(const std::shared_ptr<const Dataset>& split) {
  const auto batches = data_.eval_batches(split, compute_.device());
  return compute_.evaluate(*model_.surgeon, *task_, *batches, split->size());
}

void Run::log_evaluation(const std::string& prefix, std::int64_t step,
                         const Evaluation& evaluation) {
  for (const TaskMetric& metric : evaluation.metrics) {
    log_.number(cat(prefix, "/", metric.name), step, metric.value, metric.unit,
                static_cast<Better>(metric.better));
  }
}

/// Points carry the number of the last step done, so that a later attempt, which starts at the step
/// after it, does not replace them.
void Run::evaluate_all(std::int64_t step) {
  const Evaluation test = evaluate_on(data_.splits().test);
  log_evaluation("eval", step - 1, test);
  if (data_.splits().holdout) {
    log_evaluation("holdout", step - 1, evaluate_on(data_.splits().holdout));
  }
  if (options_.ema_decay > 0) {
    const Ema::Swap swap(*trainer_->ema());
    log_evaluation("ema", step - 1, evaluate_on(data_.splits().test));
  }
  if (const auto peak = compute_.peak_mebibytes()) {
    log_.timing("memory/device_mib", step - 1, *peak, "MiB");
  }
  if (log_.main_rank()) {
    const TaskMetric& headline = test.metrics.front();
    const std::int64_t per_epoch = data_.steps_per_epoch();
    log_info(cat("epoch ", (step + per_epoch - 1) / per_epoch, " of ", options_.epochs, ": ",
                 headline.name, " ", headline.value, " ", headline.unit));
  }
}

bool Run::checkpoint_due(std::int64_t step) const {
  const double age = std::chrono::duration<double>(Clock::now() - last_checkpoint_).count();
  return age >= environment_.checkpoint_seconds ||
         (environment_.checkpoint_steps > 0 && step % environment_.checkpoint_steps == 0);
}

void Run::save_checkpoint(std::int64_t step) {
  step_ = step;
  last_checkpoint_ = Clock::now();
  methods_.before_save(*context_);
  if (!log_.main_rank()) return;
  Checkpoint checkpoint{.step = step, .state = {}, .tensors = model_tensors(*model_.model)};
  const Structure now = structure();
  checkpoint.state = {{"spec", spec_.id()},
                      {"edits", now.to_json().at("edits")},
                      {"methods", methods_.save()},
                      {"init_sha256", model_.init_sha256},
                      {"attempt", environment_.attempt}};
  checkpoint.state["compute"] = compute_.save();
  trainer_->save(checkpoint);
  // The numbers up to this step are durable before the checkpoint that relies on them.
  spool_.flush();
  spool_.checkpoint(checkpoints_.save(checkpoint, now.hash(), methods_.settled()));
}

void Run::check_fence() const {
  if (!fs::exists(paths_.fence())) return;  // started by hand, without a scheduler
  const std::int64_t current = std::stoll(read_file(paths_.fence()));
  if (current != environment_.fence) {
    throw TransientError(cat("this attempt was given up (fence ", environment_.fence, ", now ",
                             current, "); a later one writes ", paths_.directory.string()));
  }
}

/// The finalized model is what tables speak about.
void Run::finish() {
  step_ = length().total_steps;
  methods_.finalize(*model_.surgeon);
  trainer_->follow_structure();
  report_finals(log_, step_, evaluate_on(data_.splits().test), *model_.model);
  if (log_.main_rank()) {
    save_finals();
    spool_.flush();
  }
}

void Run::save_finals() {
  const Structure final_structure = structure();
  write_finals(paths_.final_directory(), final_structure, spec_.id(), *model_.model,
               trainer_->ema(), [this] { check_fence(); });
  log_.event(step_, "finalized", finals_json(final_structure, spec_.id()));
}

}  // namespace

Outcome execute_run(const RunSpec& spec, const Environment& environment, Communicator& world,
                    StopSignal& stop) {
  return Run(spec, environment, world, stop).execute();
}

}  // namespace ablate
