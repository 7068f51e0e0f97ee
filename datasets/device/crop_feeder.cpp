#include "datasets/device/crop_feeder.h"

#include <algorithm>
#include <utility>

namespace ablate {
namespace {

at::Tensor bytes_on(at::Device device, std::int64_t count) {
  return at::empty({count}, at::TensorOptions().dtype(at::kByte).device(device));
}

/// Makes `room` hold at least so many bytes; what it held is lost.
void grow(at::Tensor& room, std::int64_t bytes, at::Device device) {
  if (room.defined() && room.numel() >= bytes) return;
  room.reset();
  room = bytes_on(device, bytes + bytes / 4);
}

}  // namespace

CropFeeder::CropFeeder(std::unique_ptr<CropLoader> loader, at::Device device)
    : loader_(std::move(loader)),
      device_(device),
      work_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())) {}

/// A fault of the device is thrown by whatever is asked of it next, not here.
CropFeeder::~CropFeeder() {
  static_cast<void>(cudaStreamSynchronize(work_.stream()));
  if (consumer_) static_cast<void>(cudaStreamSynchronize(consumer_->stream()));
}

void CropFeeder::seek(std::int64_t epoch, std::int64_t step_in_epoch) {
  loader_->seek(epoch, step_in_epoch);
  ahead_ = false;
}

const Batch& CropFeeder::next(const c10::cuda::CUDAStream& stream) {
  if (consumer_) slots_[current_].consumed.record(*consumer_);
  prefetch();
  current_ = 1 - current_;
  ahead_ = false;
  consumer_ = stream;
  slots_[current_].made.block(stream);
  return slots_[current_].batch;
}

void CropFeeder::prefetch() {
  if (ahead_) return;
  CroppedBatch host = loader_->next();
  Slot& slot = slots_[1 - current_];
  // The room belongs to this stream too: the allocator gives nothing that another one still uses.
  const c10::cuda::CUDAStreamGuard guard(work_);
  slot.copied.synchronize();  // two batches ago: the pinned memory goes back to the loader
  slot.host = std::move(host);
  make_room(slot);
  slot.consumed.block(work_);
  enqueue(slot);
  ahead_ = true;
}

void CropFeeder::make_room(Slot& slot) {
  const augment::TrainBatch& common = loader_->common();
  const std::int64_t rows = common.rows, side = common.recipe.side;
  grow(slot.pixels, slot.host.room.pixels, device_);
  grow(rows_, slot.host.room.rows, device_);
  grow(taps_, slot.host.room.taps * std::int64_t{sizeof(std::int32_t)}, device_);
  if (slot.batch.images.defined()) return;
  slot.crops = bytes_on(device_, slot.host.crops.numel());
  grow(canvases_, rows * 2 * Image::kChannels * side * side, device_);
  const auto floats = at::TensorOptions().dtype(at::kFloat).device(device_);
  slot.batch.images = at::empty({rows, Image::kChannels, side, side}, floats);
  slot.batch.labels = at::empty({rows}, floats.dtype(at::kLong));
  slot.batch.weights = at::ones({rows}, floats);
  if (common.mix_group == 0) return;
  slot.batch.other_labels = at::empty_like(slot.batch.labels);
  slot.batch.mix = at::empty_like(slot.batch.weights);
  grow(plans_, rows / common.mix_group * std::int64_t{sizeof(MixPlan)}, device_);
}

void CropFeeder::enqueue(Slot& slot) {
  const CroppedBatch& host = slot.host;
  slot.pixels.narrow(0, 0, host.room.pixels)
      .copy_(host.pixels.narrow(0, 0, host.room.pixels), /*non_blocking=*/true);
  slot.crops.copy_(host.crops.view({-1}), /*non_blocking=*/true);
  slot.copied.record(work_);
  slot.batch.indices = host.indices;
  slot.batch.first_position = host.first_position;
  auto* const crops = slot.crops.data_ptr<std::uint8_t>();
  augment::CropBatch batch{.train = loader_->common(),
                           .crops = reinterpret_cast<const augment::CropRow*>(crops),
                           .pixels = slot.pixels.data_ptr<std::uint8_t>(),
                           .rows = rows_.data_ptr<std::uint8_t>(),
                           .taps = static_cast<std::int32_t*>(taps_.data_ptr()),
                           .canvases = canvases_.data_ptr<std::uint8_t>()};
  batch.train.first_position = host.first_position;
  batch.train.step = reinterpret_cast<const std::int64_t*>(crops + slot.crops.numel()) - 1;
  batch.train.images = slot.batch.images.data_ptr<float>();
  batch.train.labels = slot.batch.labels.data_ptr<std::int64_t>();
  if (batch.train.mix_group > 0) {
    batch.train.plans = static_cast<MixPlan*>(plans_.data_ptr());
    batch.train.other_labels = slot.batch.other_labels.data_ptr<std::int64_t>();
    batch.train.mixed = slot.batch.mix.data_ptr<float>();
  }
  augment::make_batch(batch, work_.stream());
  slot.made.record(work_);
}

}  // namespace ablate
