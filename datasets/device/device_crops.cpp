#include "datasets/device/device_crops.h"

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

DeviceCrops::DeviceCrops(CropSource& source, at::Device device, bool as_half)
    : source_(source),
      device_(device),
      half_(as_half),
      work_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())) {}

/// A fault of the device is thrown by whatever is asked of it next, not here.
DeviceCrops::~DeviceCrops() {
  static_cast<void>(cudaStreamSynchronize(work_.stream()));
  if (consumer_) static_cast<void>(cudaStreamSynchronize(consumer_->stream()));
}

const Batch& DeviceCrops::next(const c10::cuda::CUDAStream& stream) {
  if (consumer_) slots_[current_].consumed.record(*consumer_);
  prefetch();
  current_ = 1 - current_;
  ahead_ = false;
  consumer_ = stream;
  slots_[current_].made.block(stream);
  return slots_[current_].batch;
}

void DeviceCrops::prefetch() {
  if (ahead_) return;
  CroppedBatch host = source_.next();
  Slot& slot = slots_[1 - current_];
  // The room belongs to this stream too: the allocator gives nothing that another one still uses.
  const c10::cuda::CUDAStreamGuard guard(work_);
  slot.copied.synchronize();  // two batches ago: the pinned memory goes back to the loader
  slot.host = std::move(host);
  make_room(slot);
  slot.consumed.block(work_);
  send(slot);
  finish(slot);
  ahead_ = true;
}

void DeviceCrops::make_room(Slot& slot) {
  const augment::TrainBatch& common = source_.common();
  const std::int64_t rows = common.rows, side = common.recipe.side;
  grow(slot.pixels, slot.host.room.pixels, device_);
  grow(rows_, slot.host.room.rows, device_);
  grow(taps_, slot.host.room.taps * std::int64_t{sizeof(std::int32_t)}, device_);
  if (slot.batch.images.defined()) return;
  slot.crops = bytes_on(device_, slot.host.crops.numel());
  grow(canvases_, rows * 2 * Image::kChannels * side * side, device_);
  const auto floats = at::TensorOptions().dtype(at::kFloat).device(device_);
  const std::array<std::int64_t, 4> size{rows, Image::kChannels, side, side};
  if (half_ && !floats_.defined()) floats_ = at::empty(size, floats);
  slot.batch.images = at::empty(size, half_ ? floats.dtype(at::kBFloat16) : floats);
  slot.batch.labels = at::empty({rows}, floats.dtype(at::kLong));
  slot.batch.weights = at::ones({rows}, floats);
  slot.samples = rows;
  if (common.mix_group == 0) return;
  slot.batch.other_labels = at::empty_like(slot.batch.labels);
  slot.batch.mix = at::empty_like(slot.batch.weights);
  grow(plans_, rows / common.mix_group * std::int64_t{sizeof(MixPlan)}, device_);
}

void DeviceCrops::send(Slot& slot) {
  const CroppedBatch& host = slot.host;
  slot.pixels.narrow(0, 0, host.room.pixels)
      .copy_(host.pixels.narrow(0, 0, host.room.pixels), /*non_blocking=*/true);
  slot.crops.copy_(host.crops.view({-1}), /*non_blocking=*/true);
  slot.copied.record(work_);
  slot.batch.indices = host.indices;
  slot.batch.first_position = host.first_position;
}

void DeviceCrops::finish(Slot& slot) {
  auto* const crops = slot.crops.data_ptr<std::uint8_t>();
  augment::CropBatch batch{.train = source_.common(),
                           .crops = reinterpret_cast<const augment::CropRow*>(crops),
                           .pixels = slot.pixels.data_ptr<std::uint8_t>(),
                           .rows = rows_.data_ptr<std::uint8_t>(),
                           .taps = static_cast<std::int32_t*>(taps_.data_ptr()),
                           .canvases = canvases_.data_ptr<std::uint8_t>()};
  batch.train.rows = slot.host.samples;
  batch.train.first_position = slot.host.first_position;
  batch.train.step = reinterpret_cast<const std::int64_t*>(crops + slot.crops.numel()) - 1;
  batch.train.images = (half_ ? floats_ : slot.batch.images).data_ptr<float>();
  if (half_) batch.half = static_cast<kernels::bfloat16*>(slot.batch.images.data_ptr());
  batch.train.labels = slot.batch.labels.data_ptr<std::int64_t>();
  if (batch.train.mix_group > 0) {
    batch.train.plans = static_cast<MixPlan*>(plans_.data_ptr());
    batch.train.other_labels = slot.batch.other_labels.data_ptr<std::int64_t>();
    batch.train.mixed = slot.batch.mix.data_ptr<float>();
  }
  augment::make_batch(batch, work_.stream());
  clear_padding(slot);
  slot.made.record(work_);
}

void DeviceCrops::clear_padding(Slot& slot) const {
  const std::int64_t samples = slot.host.samples;
  const std::int64_t padding = source_.common().rows - samples;
  for (at::Tensor part : {slot.batch.images, slot.batch.labels, slot.batch.weights}) {
    if (padding > 0) part.narrow(0, samples, padding).zero_();
  }
  if (samples > slot.samples) slot.batch.weights.narrow(0, 0, samples).fill_(1.0);
  slot.samples = samples;
}

}  // namespace ablate
