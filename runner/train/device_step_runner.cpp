#include "runner/train/device_step_runner.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "datasets/device/crop_feeder.h"
#include "datasets/device/pinned_feeder.h"
#include "distributed/communicator.h"
#include "methods/models/half_images.h"
#include "runner/train/device_step.h"

namespace ablate {
namespace {

class DeviceStepRunner final : public StepRunner {
 public:
  DeviceStepRunner(StepParts parts, bool fused, GemmRecord& record)
      : parts_(std::move(parts)), fused_(fused), record_(record) {
    const at::Device device = parts_.arena.parameters().device();
    if (parts_.data.why_not_resident().empty()) {
      resident_ = parts_.data.resident_loader(device);
      return;
    }
    if (parts_.data.why_not_cropped().empty()) {
      feeder_ = std::make_unique<CropFeeder>(parts_.data.crop_loader(/*pinned=*/true), device,
                                             half_images());
      return;
    }
    loader_ = parts_.data.train_loader(/*pinned=*/true);
    feeder_ = std::make_unique<PinnedFeeder>(*loader_, device);
  }

  void seek(std::int64_t step) override;
  void begin(std::int64_t step, const StepWishes& wishes) override;
  std::optional<StepReport> report(std::int64_t left) override;
  std::int64_t lag() const override { return DeviceStep::kSlots - 1; }

  void leave_structure() override;
  void enter_structure() override {}  // made at the next step, when values are in place

 private:
  /// A step that was enqueued and what the host knows of it.
  struct Pending {
    std::int64_t step;
    double lr;
    double waited;  // by the host, for this step's images
    StageSeconds loading;
  };

  bool half_images() const {
    return fused_ && !parts_.exact_images && takes_half_images(parts_.model);
  }
  void make_step();
  void load_images();
  void take_oldest();

  StepParts parts_;
  bool fused_;
  GemmRecord& record_;
  std::unique_ptr<ResidentLoader> resident_;  // or a feeder
  std::unique_ptr<TrainLoader> loader_;       // of a PinnedFeeder
  std::unique_ptr<BatchFeeder> feeder_;
  std::unique_ptr<DeviceStep> step_;
  std::deque<Pending> pending_;
  std::deque<StepReport> reports_;
};

void DeviceStepRunner::seek(std::int64_t step) {
  if (resident_) return;  // its batches follow the number of the step
  const std::int64_t per_epoch = feeder_->steps_per_epoch();
  feeder_->seek(step / per_epoch, step % per_epoch);
}

void DeviceStepRunner::make_step() {
  const std::int64_t rank_batch = parts_.options.global_batch / parts_.communicator.size();
  DeviceStep::Parts step{
      .model = parts_.model,
      .optimizer = parts_.optimizer,
      .arena = parts_.arena,
      .loss = parts_.loss,
      .batch = parts_.data.micro_batch(),
      .first_position = parts_.communicator.rank() * rank_batch,
      .seed = parts_.seed,
      .micro_batches = rank_batch / parts_.data.micro_batch(),
      .ema = parts_.ema,
      .fused = fused_,
      .half_images = half_images(),
      .communicator = &parts_.communicator,
      .wire = parts_.options.wire == "bf16" ? Wire::Bfloat16 : Wire::Gradients,
      .choices = record_.choices(),
      .settle = [this](const kernels::GemmChoices& found) { return record_.settle(found); }};
  if (resident_) {
    step.make_inputs = [this] { return resident_->make_buffers(); };
    step.fill = [this](const Batch& inputs, std::int64_t micro_batch, const std::int64_t* number) {
      resident_->enqueue(inputs, micro_batch, number);
    };
  }
  step_ = std::make_unique<DeviceStep>(std::move(step));
}

void DeviceStepRunner::load_images() {
  const std::int64_t rank_batch = parts_.options.global_batch / parts_.communicator.size();
  for (std::int64_t i = 0; i < rank_batch / parts_.data.micro_batch(); ++i) {
    if (i > 0) feeder_->prefetch();
    step_->load(i, feeder_->next(step_->stream()));
  }
}

void DeviceStepRunner::begin(std::int64_t step, const StepWishes& wishes) {
  if (!step_) make_step();
  if (feeder_) load_images();
  const double waited = feeder_ ? feeder_->take_wait_seconds() : 0.0;
  const double lr = parts_.schedule.lr(step);
  step_->enqueue({.step = step,
                  .lr = lr,
                  .clip_norm = parts_.options.clip_norm,
                  .ema_decay = parts_.options.ema_decay,
                  .wishes = wishes});
  if (feeder_) feeder_->prefetch();
  pending_.push_back({.step = step,
                      .lr = lr,
                      .waited = waited,
                      .loading = feeder_ ? feeder_->take_stage_seconds() : StageSeconds()});
}

std::optional<StepReport> DeviceStepRunner::report(std::int64_t left) {
  if (std::ssize(pending_) + std::ssize(reports_) <= left) return std::nullopt;
  if (reports_.empty()) take_oldest();
  const StepReport report = reports_.front();
  reports_.pop_front();
  return report;
}

void DeviceStepRunner::take_oldest() {
  const DeviceStepResult result = step_->take();
  const Pending pending = pending_.front();
  pending_.pop_front();
  parts_.arena.set_updates(result.updates);
  reports_.push_back({.step = pending.step,
                      .loss = result.loss,
                      .grad_norm = result.grad_norm,
                      .lr = pending.lr,
                      .finite = result.finite,
                      .seconds = result.seconds,
                      // While the host waits, the device may still be at work on steps before.
                      .waited = std::min(pending.waited, result.idle),
                      .loading = pending.loading,
                      .wishes = result.wishes});
}

void DeviceStepRunner::leave_structure() {
  while (!pending_.empty()) take_oldest();
  step_.reset();
}

}  // namespace

std::unique_ptr<StepRunner> make_device_step_runner(StepParts parts, bool fused,
                                                    GemmRecord& record) {
  return std::make_unique<DeviceStepRunner>(std::move(parts), fused, record);
}

}  // namespace ablate
