#include "datasets/device/crop_packer.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace ablate {

static_assert(std::is_trivially_copyable_v<augment::CropRow>);

CroppedBatch CropPacker::pack(const DrawnBatch& drawn, const PlanCrop& plan) {
  CroppedBatch batch;
  batch.first_position = drawn.first_position;
  batch.samples = std::ssize(drawn.rows);
  batch.crops = memory_.take({1, CroppedBatch::crop_bytes(rows_)}, at::kByte);
  batch.pixels = memory_.take_bytes(std::max<std::int64_t>(most_bytes_, 1));
  auto* crops = reinterpret_cast<augment::CropRow*>(batch.crops.data_ptr());
  const SampleReaders::Lease reader(readers_);
  StageTimer timer(clock_);
  for (const DrawnBatch::Row& row : drawn.rows) {
    const CropPlan taken = plan(reader->open(*dataset_, row.index, timer), row.key);
    *crops = augment::crop_row(taken, row.key.sample, dataset_->label(row.index));
    batch.room.place(*crops);
    make_room(batch, crops->pixels);
    timer.was(LoadStage::Copy);
    reader->read(taken.source, batch.pixels.data_ptr<std::uint8_t>() + crops->pixels, timer);
    batch.indices.push_back(row.index);
    ++crops;
  }
  batch.indices.resize(static_cast<std::size_t>(rows_), -1);
  std::uint8_t* const end = batch.crops.data_ptr<std::uint8_t>() + batch.crops.numel();
  std::memcpy(end - sizeof drawn.step, &drawn.step, sizeof drawn.step);
  return batch;
}

/// Has room for all rows that are placed, of which `filled` bytes are there.
void CropPacker::make_room(CroppedBatch& batch, std::int64_t filled) {
  if (batch.room.pixels <= batch.pixels.numel()) return;
  const at::Tensor larger = memory_.take_bytes(batch.room.pixels * 3 / 2);
  std::memcpy(larger.data_ptr(), batch.pixels.data_ptr(), static_cast<std::size_t>(filled));
  batch.pixels = larger;
  most_bytes_ = std::max<std::int64_t>(most_bytes_, larger.numel());
}

}  // namespace ablate
