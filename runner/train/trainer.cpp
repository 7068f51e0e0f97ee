#include "runner/train/trainer.h"

#include <cmath>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "runner/core/log.h"
#include "runner/train/input_bound.h"
#include "runner/train/run_gate.h"

namespace ablate {
namespace {

constexpr double kInputBound = 0.2;  // share of a step spent waiting for images

}  // namespace

Trainer::Trainer(Parts parts, Callbacks callbacks)
    : parts_(std::move(parts)), callbacks_(std::move(callbacks)) {
  Surgeon& surgeon = parts_.context.surgeon();
  arena_.emplace(surgeon.model());
  arena_->rebuild(surgeon);
  parts_.optimizer.prepare(*arena_);
  if (parts_.options.ema_decay > 0) {
    ema_.emplace(surgeon.model(), *arena_, parts_.options.ema_decay);
  }
  steps_ = parts_.make_step_runner(
      {.options = parts_.options,
       .schedule = parts_.schedule,
       .optimizer = parts_.optimizer,
       .communicator = parts_.context.communicator(),
       .model = surgeon.model(),
       .data = parts_.data,
       .arena = *arena_,
       .ema = ema(),
       .loss = [this](const Batch& batch, ForwardState& state) { return batch_loss(batch, state); },
       .exact_images = parts_.distillation != nullptr,
       .seed = parts_.context.seed()});
}

Trainer::~Trainer() = default;

Trainer::Result Trainer::fit(std::int64_t first_step) {
  RunContext& context = parts_.context;
  const std::int64_t per_epoch = context.steps_per_epoch();
  const std::int64_t total = context.length().total_steps;
  context.surgeon().model().train();
  if (first_step < total) steps_->seek(first_step);

  for (std::int64_t step = first_step; step < total;) {
    RunGate::of_process().step_boundary();
    context.set_step(step);
    if (step % per_epoch == 0) parts_.methods.on_epoch(context, EpochEdge::Start);
    parts_.methods.between_steps(context);
    follow_structure();

    if (parts_.profile) parts_.profile->before_step(step);
    steps_->begin(step, wishes(step));
    ++step;
    const bool last = step == total, epoch_ends = last || step % per_epoch == 0;
    StepWishes agreed = take_reports(epoch_ends ? 0 : steps_->lag());
    if (epoch_ends) end_epoch(step, last);
    if (agreed.stop || agreed.checkpoint || last) {
      agreed.stop = take_reports(0).stop || agreed.stop;
      callbacks_.save_checkpoint(step);
    }
    if (agreed.stop && !last) return Result::Stopped;
  }
  return Result::Finished;
}

void Trainer::end_epoch(std::int64_t step, bool last) {
  RunContext& context = parts_.context;
  parts_.methods.on_epoch(context, EpochEdge::End);
  follow_structure();
  log_epoch(step - 1);
  const std::int64_t epoch = step / context.steps_per_epoch();
  if (epoch % parts_.options.evaluate_every == 0 || last) callbacks_.evaluate(step);
}

/// Arena and step runner are views of a structure; after an edit both are made anew, the state of
/// surviving parameters following.
void Trainer::follow_structure() {
  Surgeon& surgeon = parts_.context.surgeon();
  if (arena_->generation() == surgeon.generation()) return;
  steps_->leave_structure();
  arena_->rebuild(surgeon);
  if (ema_) ema_->rebuild(surgeon.model());
  steps_->enter_structure();
}

StepWishes Trainer::wishes(std::int64_t step) const {
  const bool main_rank = parts_.context.communicator().rank() == 0;
  return {.stop = parts_.stop.requested(),
          .checkpoint = main_rank && callbacks_.checkpoint_due(step + 1)};
}

/// Logs the steps that are over, all but `left` of them; what ranks wished in any of them.
StepWishes Trainer::take_reports(std::int64_t left) {
  StepWishes wished;
  while (const std::optional<StepReport> report = steps_->report(left)) {
    if (!report->finite) meet_nan(*report);
    log_step(*report);
    wished.stop = wished.stop || report->wishes.stop;
    wished.checkpoint = wished.checkpoint || report->wishes.checkpoint;
  }
  return wished;
}

at::Tensor Trainer::batch_loss(const Batch& batch, ForwardState& state) {
  state.seed = parts_.context.seed();
  state.first_position = batch.first_position;
  state.global_batch = parts_.options.global_batch;
  state.bn_communicator = parts_.bn_communicator;
  parts_.methods.before_pass(parts_.context, state);
  const at::Tensor output = parts_.context.surgeon().model().forward(batch.images, state);
  parts_.methods.after_pass(parts_.context, state);
  at::Tensor loss = pass_loss(parts_.task, output, batch, state);
  if (parts_.distillation) loss = parts_.distillation->loss(loss, output, batch.images);
  return parts_.methods.in_step(parts_.context, loss);
}

void Trainer::meet_nan(const StepReport& report) {
  const std::string what = cat("loss ", report.loss, ", gradient norm ", report.grad_norm,
                               " at step ", report.step, " (learning rate ", report.lr, ")");
  if (parts_.options.on_nan == NanPolicy::Stop) {
    throw DivergedError(what + "; lower optimizer.lr, set clip_norm, or on_nan = \"skip\"");
  }
  if (parts_.log.main_rank()) log_warning(cat(what, ": update skipped"));
  parts_.log.event(report.step, "nan_skipped", {{"detail", what}});
}

namespace {

/// Name of a state buffer's part in a checkpoint: "exp_avg/blocks.0.mlp.fc1.weight".
std::string state_name(const std::string& buffer, const std::string& parameter) {
  return cat(buffer, "/", parameter);
}

constexpr const char* kEmaBuffers = "ema_buffers";

}  // namespace

void Trainer::save(Checkpoint& checkpoint) {
  arena_->for_each([&](const std::string& buffer, const ArenaSegment& segment, at::Tensor view) {
    if (buffer.empty()) return;  // the parameters are the model's
    checkpoint.tensors.emplace_back(state_name(buffer, segment.name), view);
  });
  if (ema_) {
    for (const auto& [name, average] : ema_->buffers()) {
      checkpoint.tensors.emplace_back(state_name(kEmaBuffers, name), average);
    }
  }
  checkpoint.state["updates"] = arena_->updates();
}

void Trainer::restore(const Checkpoint& checkpoint) {
  const std::map<std::string, at::Tensor> stored(checkpoint.tensors.begin(),
                                                 checkpoint.tensors.end());
  const auto copy = [&](const std::string& name, at::Tensor target) {
    const auto found = stored.find(name);
    if (found == stored.end()) throw Error(cat("the checkpoint has no tensor ", name));
    target.copy_(found->second);
  };
  const at::NoGradGuard no_grad;
  arena_->for_each([&](const std::string& buffer, const ArenaSegment& segment, at::Tensor view) {
    if (!buffer.empty()) copy(state_name(buffer, segment.name), view);
  });
  if (ema_) {
    for (const auto& [name, average] : ema_->buffers())
      copy(state_name(kEmaBuffers, name), average);
  }
  arena_->set_updates(checkpoint.state.at("updates").get<std::int64_t>());
}

void Trainer::log_step(const StepReport& report) {
  RunLog& log = parts_.log;
  log.number("train/loss", report.step, report.loss, "nat", Better::Lower);
  log.number("train/lr", report.step, report.lr);
  log.number("train/grad_norm", report.step, report.grad_norm);
  log.timing("time/step_s", report.step, report.seconds, "s");
  log.timing("time/wait_s", report.step, report.waited, "s");
  epoch_.seconds += report.seconds;
  epoch_.waited += report.waited;
  epoch_.loading += report.loading;
  ++epoch_.steps;
}

void Trainer::log_utilisation(std::int64_t step, double images_per_s) {
  if (!parts_.utilisation || !parts_.log.main_rank()) return;
  const auto mfu = parts_.utilisation->of(images_per_s);
  if (mfu) parts_.log.timing("train/mfu", step, *mfu, "", Better::Higher);
}

void Trainer::log_epoch(std::int64_t step) {
  const EpochTimes times = std::exchange(epoch_, {});
  const auto images = static_cast<double>(times.steps * parts_.options.global_batch);
  parts_.log.timing("time/epoch_s", step, times.seconds, "s");
  parts_.log.timing("train/images_per_s", step, images / times.seconds, "1/s", Better::Higher);
  log_utilisation(step, images / times.seconds);
  for (std::size_t i = 0; i < kLoadStageNames.size(); ++i) {
    if (times.loading.sum() == 0) break;
    parts_.log.timing(cat("time/load_", kLoadStageNames[i], "_s"), step, times.loading.of[i], "s");
  }
  const double waited = times.waited / times.seconds;
  if (waited > kInputBound && parts_.log.main_rank() && !std::exchange(said_input_bound_, true)) {
    log_warning(input_bound_text(waited, times.loading));
  }
}

}  // namespace ablate
