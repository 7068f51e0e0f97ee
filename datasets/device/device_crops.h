#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "datasets/device/crop_packer.h"

namespace ablate {

/// Finishes batches of crops on a CUDA device: crops go over as they were decoded, in one copy from
/// pinned memory, and are resampled and augmented there, on a stream beside the work on the batch
/// before. For programs with CUDA alone.
class DeviceCrops {
 public:
  /// The source must outlive this, and nobody else asks it for batches. `as_half`: images are
  /// bfloat16, rounded once, behind mixing.
  DeviceCrops(CropSource& source, at::Device device, bool as_half = false);
  /// Waits for the copies and the work that read them.
  ~DeviceCrops();
  DeviceCrops(const DeviceCrops&) = delete;
  DeviceCrops& operator=(const DeviceCrops&) = delete;

  /// As those of BatchFeeder. Padding is all zero.
  const Batch& next(const c10::cuda::CUDAStream& stream);
  void prefetch();
  /// Forgets what was fetched ahead.
  void drop() { ahead_ = false; }

 private:
  struct Slot {
    CroppedBatch host;         ///< kept until it has been copied
    at::Tensor pixels, crops;  ///< on the device
    Batch batch;
    std::int64_t samples = 0;      ///< that the batch's weights speak of
    at::cuda::CUDAEvent copied;    ///< memory of the host may be given back
    at::cuda::CUDAEvent made;      ///< the batch is complete
    at::cuda::CUDAEvent consumed;  ///< the batch may be overwritten
  };

  void make_room(Slot& slot);
  void send(Slot& slot);
  void finish(Slot& slot);
  void clear_padding(Slot& slot) const;

  CropSource& source_;
  at::Device device_;
  bool half_;
  c10::cuda::CUDAStream work_;
  std::optional<c10::cuda::CUDAStream> consumer_;  // of the batch handed out last
  std::array<Slot, 2> slots_;
  std::size_t current_ = 1;  // slot handed out last; the other one is filled next
  bool ahead_ = false;       // the other one holds the next batch
  // Room for kernels to work in, on work_ alone.
  at::Tensor rows_, taps_, canvases_, plans_, floats_;
};

}  // namespace ablate
