#include "datasets/device/pinned_feeder.h"

#include <utility>

#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr std::array kParts{&Batch::images,       &Batch::labels, &Batch::label_maps,
                            &Batch::other_labels, &Batch::mix,    &Batch::weights};

}  // namespace

PinnedFeeder::PinnedFeeder(TrainLoader& loader, at::Device device)
    : loader_(loader),
      device_(device),
      copies_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())) {}

/// A fault of the device is thrown by whatever is asked of it next, not here.
PinnedFeeder::~PinnedFeeder() {
  static_cast<void>(cudaStreamSynchronize(copies_.stream()));
  if (consumer_) static_cast<void>(cudaStreamSynchronize(consumer_->stream()));
}

void PinnedFeeder::seek(std::int64_t epoch, std::int64_t step_in_epoch) {
  loader_.seek(epoch, step_in_epoch);
  ahead_ = false;
}

const Batch& PinnedFeeder::next(const c10::cuda::CUDAStream& stream) {
  if (consumer_) slots_[current_].consumed.record(*consumer_);
  prefetch();
  current_ = 1 - current_;
  ahead_ = false;
  consumer_ = stream;
  slots_[current_].copied.block(stream);
  return slots_[current_].device;
}

void PinnedFeeder::prefetch() {
  if (ahead_) return;
  Batch batch = loader_.next();
  Slot& slot = slots_[1 - current_];
  // The room belongs to this stream too: the allocator gives nothing that another one still uses.
  const c10::cuda::CUDAStreamGuard guard(copies_);
  if (!slot.device.images.defined()) make_room(slot, batch);
  slot.copied.synchronize();  // two batches ago: pinned memory goes back to the loader
  slot.host = std::move(batch);
  slot.consumed.block(copies_);
  for (const auto part : kParts) {
    const at::Tensor& values = slot.host.*part;
    ABLATE_CHECK(values.defined() == (slot.device.*part).defined(), "batches of two kinds");
    if (!values.defined()) continue;
    const at::Tensor& pinned = values.is_pinned() ? values : (slot.pinned.*part).copy_(values);
    (slot.device.*part).copy_(pinned, /*non_blocking=*/true);
  }
  slot.copied.record(copies_);
  slot.device.indices = slot.host.indices;
  slot.device.first_position = slot.host.first_position;
  ahead_ = true;
}

void PinnedFeeder::make_room(Slot& slot, const Batch& like) const {
  for (const auto part : kParts) {
    const at::Tensor& values = like.*part;
    if (!values.defined()) continue;
    if (!values.is_pinned()) {
      slot.pinned.*part = at::empty_like(values, values.options().pinned_memory(true));
    }
    slot.device.*part =
        at::empty_like(values, values.options().pinned_memory(false).device(device_));
  }
}

}  // namespace ablate
