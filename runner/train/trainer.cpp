#include "runner/train/trainer.h"

#include <chrono>
#include <cmath>

#include "distributed/communicator.h"
#include "distributed/gradient_reducer.h"
#include "methods/models/batch_norm.h"
#include "runner/core/error.h"
#include "runner/core/log.h"

namespace ablate {
namespace {

constexpr double kInputBound = 0.2;  // share of a step spent waiting for images

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

/// What one optimizer step tells; but for the time equal on all ranks.
struct Trainer::StepNumbers {
  double loss = 0;       ///< mean over the global batch
  double grad_norm = 0;  ///< of the mean gradient over all ranks, before clipping
  double lr = 0;
  double seconds = 0;
  bool stop = false;
  bool checkpoint = false;
};

Trainer::Trainer(Parts parts, Callbacks callbacks)
    : parts_(parts), callbacks_(std::move(callbacks)) {
  Surgeon& surgeon = parts_.context.surgeon();
  arena_.emplace(surgeon.model());
  arena_->rebuild(surgeon.model(), surgeon.generation());
  parts_.optimizer.prepare(*arena_);
  if (parts_.options.ema_decay > 0) {
    ema_.emplace(surgeon.model(), *arena_, parts_.options.ema_decay);
  }
  make_reducer();
}

Trainer::~Trainer() = default;

Trainer::Result Trainer::fit(std::int64_t first_step) {
  RunContext& context = parts_.context;
  const std::int64_t per_epoch = context.steps_per_epoch();
  const std::int64_t total = per_epoch * parts_.options.epochs;
  context.surgeon().model().train();
  if (first_step < total) parts_.loader.seek(first_step / per_epoch, first_step % per_epoch);

  for (std::int64_t step = first_step; step < total;) {
    context.set_step(step);
    if (step % per_epoch == 0) parts_.methods.on_epoch(context, EpochEdge::Start);
    parts_.methods.between_steps(context);
    follow_structure();

    const StepNumbers numbers = train_step(step);
    log_step(numbers, step);
    ++step;

    const bool last = step == total;
    if (step % per_epoch == 0) end_epoch(step, last);
    if (numbers.stop || numbers.checkpoint || last) callbacks_.save_checkpoint(step);
    if (numbers.stop && !last) return Result::Stopped;
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

/// Arena and gradient reducer are views of a structure; after an edit both are made anew, the state
/// of surviving parameters following.
void Trainer::follow_structure() {
  Surgeon& surgeon = parts_.context.surgeon();
  if (arena_->generation() == surgeon.generation()) return;
  reducer_.reset();
  arena_->rebuild(surgeon.model(), surgeon.generation());
  if (ema_) ema_->rebuild(surgeon.model());
  make_reducer();
}

void Trainer::make_reducer() {
  reducer_ =
      std::make_unique<GradientReducer>(parts_.context.communicator(), arena_->gradients(),
                                        arena_->gradient_segments(), arena_->parameter_tensors());
}

Trainer::StepNumbers Trainer::train_step(std::int64_t step) {
  const auto start = std::chrono::steady_clock::now();
  const double own_loss = accumulate_gradients(step);
  StepNumbers numbers = agree(own_loss, step);
  update(numbers, step);
  numbers.seconds = seconds_since(start);
  return numbers;
}

/// Leaves the mean gradient over the global batch in the arena; returns the mean loss over this
/// rank's slice.
double Trainer::accumulate_gradients(std::int64_t step) {
  arena_->zero_grad();
  double mean_loss = 0;
  const std::int64_t micro_batches = parts_.loader.micro_batches_per_step();
  for (std::int64_t i = 0; i < micro_batches; ++i) {
    const Batch batch = parts_.loader.next();
    // Equal micro-batches: the mean of their means is the mean over the rank's slice.
    const at::Tensor loss = micro_batch_loss(batch, step) / static_cast<double>(micro_batches);
    mean_loss += loss.item<double>();
    if (i + 1 == micro_batches) reducer_->arm();
    loss.backward();
  }
  reducer_->finish();
  return mean_loss;
}

/// Loss and gradient are equal on all ranks, so they all decide alike whether they can be used.
void Trainer::update(StepNumbers& numbers, std::int64_t step) {
  Model& model = parts_.context.surgeon().model();
  numbers.lr = parts_.schedule.lr(step);
  numbers.grad_norm = gradient_norm(*arena_);
  if (!std::isfinite(numbers.loss) || !std::isfinite(numbers.grad_norm)) {
    meet_nan(numbers, step);
    discard_running_statistics(model);
    return;
  }
  parts_.optimizer.step(*arena_,
                        {.lr = numbers.lr,
                         .gradient_scale = clip_factor(numbers.grad_norm, parts_.options.clip_norm),
                         .ema_decay = parts_.options.ema_decay});
  // After every step, not when somebody looks: the moments at which checkpoints are taken must not
  // show in the rounding.
  synchronize_running_statistics(model, parts_.context.communicator());
  if (ema_) ema_->update_buffers();
}

at::Tensor Trainer::micro_batch_loss(const Batch& batch, std::int64_t step) {
  ForwardState state;
  state.seed = parts_.context.seed();
  state.step = step;
  state.first_position = batch.first_position;
  state.global_batch = parts_.options.global_batch;
  state.bn_communicator = parts_.bn_communicator;
  const at::Tensor images = batch.images.to(parts_.device, parts_.dtype);
  const at::Tensor output = parts_.context.surgeon().model().forward(images, state);
  at::Tensor loss = parts_.task.loss(output, batch);
  if (parts_.distillation) loss = parts_.distillation->loss(loss, output, images);
  return parts_.methods.in_step(parts_.context, loss);
}

void Trainer::meet_nan(const StepNumbers& numbers, std::int64_t step) {
  const std::string what = cat("loss ", numbers.loss, ", gradient norm ", numbers.grad_norm,
                               " at step ", step, " (learning rate ", numbers.lr, ")");
  if (parts_.options.on_nan == NanPolicy::Stop) {
    throw DivergedError(what + "; lower optimizer.lr, set clip_norm, or on_nan = \"skip\"");
  }
  if (parts_.log.main_rank()) log_warning(cat(what, ": update skipped"));
  parts_.log.event(step, "nan_skipped", {{"detail", what}});
}

Trainer::StepNumbers Trainer::agree(double loss, std::int64_t step) {
  Communicator& communicator = parts_.context.communicator();
  const bool due = communicator.rank() == 0 && callbacks_.checkpoint_due(step + 1);
  at::Tensor sums = at::empty({3}, at::kDouble);
  auto values = sums.accessor<double, 1>();
  values[0] = loss;
  values[1] = parts_.stop.requested() ? 1.0 : 0.0;
  values[2] = due ? 1.0 : 0.0;
  communicator.all_reduce(sums);
  StepNumbers agreed;
  agreed.loss = values[0] / communicator.size();
  agreed.stop = values[1] > 0;
  agreed.checkpoint = values[2] > 0;
  return agreed;
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

void Trainer::log_step(const StepNumbers& numbers, std::int64_t step) {
  RunLog& log = parts_.log;
  const double waited = parts_.loader.take_wait_seconds();
  log.number("train/loss", step, numbers.loss, "nat", Better::Lower);
  log.number("train/lr", step, numbers.lr);
  log.number("train/grad_norm", step, numbers.grad_norm);
  log.timing("time/step_s", step, numbers.seconds, "s");
  log.timing("time/wait_s", step, waited, "s");
  epoch_.seconds += numbers.seconds;
  epoch_.waited += waited;
  ++epoch_.steps;
}

void Trainer::log_epoch(std::int64_t step) {
  const EpochTimes times = std::exchange(epoch_, {});
  const auto images = static_cast<double>(times.steps * parts_.options.global_batch);
  parts_.log.timing("time/epoch_s", step, times.seconds, "s");
  parts_.log.timing("train/images_per_s", step, images / times.seconds, "1/s", Better::Higher);
  const double waited = times.waited / times.seconds;
  if (waited > kInputBound && parts_.log.main_rank() && !std::exchange(said_input_bound_, true)) {
    log_warning(cat("input-bound: ", std::lround(100 * waited),
                    " % of the epoch's steps was waiting for images; raise --loader-threads"));
  }
}

}  // namespace ablate
