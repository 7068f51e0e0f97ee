#pragma once

#include <memory>

#include "datasets/device/batch_feeder.h"
#include "datasets/device/crop_loader.h"
#include "datasets/device/device_crops.h"

namespace ablate {

/// Feeds a CUDA device from a CropLoader. For programs with CUDA alone.
class CropFeeder final : public BatchFeeder {
 public:
  /// Nobody else asks the loader for batches. `as_half` as DeviceCrops has it.
  CropFeeder(std::unique_ptr<CropLoader> loader, at::Device device, bool as_half = false)
      : loader_(std::move(loader)), crops_(*loader_, device, as_half) {}

  std::int64_t steps_per_epoch() const override { return loader_->plan().steps; }
  void seek(std::int64_t epoch, std::int64_t step_in_epoch) override {
    loader_->seek(epoch, step_in_epoch);
    crops_.drop();
  }
  const Batch& next(const c10::cuda::CUDAStream& stream) override { return crops_.next(stream); }
  void prefetch() override { crops_.prefetch(); }
  double take_wait_seconds() override { return loader_->take_wait_seconds(); }
  StageSeconds take_stage_seconds() override { return loader_->take_stage_seconds(); }

 private:
  std::unique_ptr<CropLoader> loader_;
  DeviceCrops crops_;
};

}  // namespace ablate
