#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "datasets/device/batch_feeder.h"
#include "datasets/device/crop_loader.h"

namespace ablate {

/// Feeds a CUDA device from a CropLoader: crops go over as they were decoded, in one copy from
/// pinned memory, and are augmented there, on a stream beside the work on the batch before. For
/// programs with CUDA alone.
class CropFeeder final : public BatchFeeder {
 public:
  /// Nobody else asks the loader for batches.
  CropFeeder(std::unique_ptr<CropLoader> loader, at::Device device);
  /// Waits for the copies and the work that read them.
  ~CropFeeder() override;

  std::int64_t steps_per_epoch() const override { return loader_->plan().steps; }
  void seek(std::int64_t epoch, std::int64_t step_in_epoch) override;
  const Batch& next(const c10::cuda::CUDAStream& stream) override;
  void prefetch() override;
  double take_wait_seconds() override { return loader_->take_wait_seconds(); }
  StageSeconds take_stage_seconds() override { return loader_->take_stage_seconds(); }

 private:
  struct Slot {
    CroppedBatch host;         ///< kept until it has been copied
    at::Tensor pixels, crops;  ///< on the device
    Batch batch;
    at::cuda::CUDAEvent copied;    ///< memory of the host may be given back
    at::cuda::CUDAEvent made;      ///< the batch is complete
    at::cuda::CUDAEvent consumed;  ///< the batch may be overwritten
  };

  void make_room(Slot& slot);
  void enqueue(Slot& slot);

  std::unique_ptr<CropLoader> loader_;
  at::Device device_;
  c10::cuda::CUDAStream work_;
  std::optional<c10::cuda::CUDAStream> consumer_;  // of the batch handed out last
  std::array<Slot, 2> slots_;
  std::size_t current_ = 1;  // slot handed out last; the other one is filled next
  bool ahead_ = false;       // the other one holds the next batch
  // Room for kernels to work in, on work_ alone.
  at::Tensor rows_, taps_, canvases_, plans_;
};

}  // namespace ablate
