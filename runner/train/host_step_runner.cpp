#include "runner/train/host_step_runner.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "distributed/communicator.h"
#include "distributed/gradient_reducer.h"
#include "methods/models/batch_norm.h"
#include "methods/models/model.h"

namespace ablate {
namespace {

using StepClock = std::chrono::steady_clock;

class HostStepRunner final : public StepRunner {
 public:
  HostStepRunner(StepParts parts, at::ScalarType dtype)
      : parts_(std::move(parts)), dtype_(dtype), loader_(parts_.data.train_loader()) {
    enter_structure();
  }

  void seek(std::int64_t step) override {
    const std::int64_t per_epoch = loader_->steps_per_epoch();
    loader_->seek(step / per_epoch, step % per_epoch);
  }

  void begin(std::int64_t step, const StepWishes& wishes) override;
  std::optional<StepReport> report(std::int64_t) override { return std::exchange(report_, {}); }
  std::int64_t lag() const override { return 0; }

  void leave_structure() override { reducer_.reset(); }
  void enter_structure() override {
    reducer_ = std::make_unique<GradientReducer>(parts_.communicator, parts_.arena.gradients(),
                                                 parts_.arena.gradient_segments(),
                                                 parts_.arena.parameter_tensors());
  }

 private:
  double accumulate_gradients(std::int64_t step);
  StepReport agree(double loss, const StepWishes& wishes);
  void update(StepReport& report);

  StepParts parts_;
  at::ScalarType dtype_;
  std::unique_ptr<TrainLoader> loader_;
  std::unique_ptr<GradientReducer> reducer_;
  std::optional<StepReport> report_;
};

void HostStepRunner::begin(std::int64_t step, const StepWishes& wishes) {
  const auto start = StepClock::now();
  const double own_loss = accumulate_gradients(step);
  StepReport report = agree(own_loss, wishes);
  report.step = step;
  update(report);
  report.seconds = std::chrono::duration<double>(StepClock::now() - start).count();
  report.waited = loader_->take_wait_seconds();
  report.loading = loader_->take_stage_seconds();
  report_ = report;
}

/// Leaves the mean gradient over the global batch in the arena; returns the mean loss over this
/// rank's slice.
double HostStepRunner::accumulate_gradients(std::int64_t step) {
  parts_.arena.zero_grad();
  double mean_loss = 0;
  const std::int64_t micro_batches = loader_->micro_batches_per_step();
  for (std::int64_t i = 0; i < micro_batches; ++i) {
    Batch batch = loader_->next();
    batch.images = batch.images.to(dtype_);
    ForwardState state;
    state.step = step;
    // Equal micro-batches: the mean of their means is the mean over the rank's slice.
    const at::Tensor loss = parts_.loss(batch, state) / static_cast<double>(micro_batches);
    mean_loss += loss.item<double>();
    if (i + 1 == micro_batches) reducer_->arm();
    loss.backward();
  }
  reducer_->finish();
  return mean_loss;
}

StepReport HostStepRunner::agree(double loss, const StepWishes& wishes) {
  at::Tensor sums = at::empty({3}, at::kDouble);
  auto values = sums.accessor<double, 1>();
  values[0] = loss;
  values[1] = wishes.stop ? 1.0 : 0.0;
  values[2] = wishes.checkpoint ? 1.0 : 0.0;
  parts_.communicator.all_reduce(sums);
  StepReport agreed;
  agreed.loss = values[0] / parts_.communicator.size();
  agreed.wishes = {.stop = values[1] > 0, .checkpoint = values[2] > 0};
  return agreed;
}

/// Loss and gradient are equal on all ranks, so they all decide alike whether they can be used.
void HostStepRunner::update(StepReport& report) {
  report.lr = parts_.schedule.lr(report.step);
  report.grad_norm = gradient_norm(parts_.arena);
  report.finite = std::isfinite(report.loss) && std::isfinite(report.grad_norm);
  if (!report.finite) return discard_running_statistics(parts_.model);
  parts_.optimizer.step(parts_.arena,
                        {.lr = report.lr,
                         .gradient_scale = clip_factor(report.grad_norm, parts_.options.clip_norm),
                         .ema_decay = parts_.options.ema_decay});
  // After every step, not when somebody looks: the moments at which checkpoints are taken must not
  // show in the rounding.
  synchronize_running_statistics(parts_.model, parts_.communicator);
  if (parts_.ema) parts_.ema->update_buffers();
}

}  // namespace

std::unique_ptr<StepRunner> make_host_step_runner(StepParts parts, at::ScalarType dtype) {
  return std::make_unique<HostStepRunner>(std::move(parts), dtype);
}

}  // namespace ablate
