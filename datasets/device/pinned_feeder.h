#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "datasets/device/batch_feeder.h"

namespace ablate {

/// Feeds a CUDA device from a TrainLoader: through pinned memory (the loader's, if it is pinned)
/// and on a stream of its own, so that the copy of one batch runs beside the work on the batch
/// before. For programs with CUDA alone.
class PinnedFeeder final : public BatchFeeder {
 public:
  /// The loader must outlive the feeder, and nobody else asks it for batches.
  PinnedFeeder(TrainLoader& loader, at::Device device);
  /// Waits for the copies and the work that read them.
  ~PinnedFeeder() override;
  PinnedFeeder(const PinnedFeeder&) = delete;
  PinnedFeeder& operator=(const PinnedFeeder&) = delete;

  std::int64_t steps_per_epoch() const override { return loader_.steps_per_epoch(); }
  void seek(std::int64_t epoch, std::int64_t step_in_epoch) override;
  const Batch& next(const c10::cuda::CUDAStream& stream) override;
  void prefetch() override;
  double take_wait_seconds() override { return loader_.take_wait_seconds(); }
  StageSeconds take_stage_seconds() override { return loader_.take_stage_seconds(); }

 private:
  struct Slot {
    Batch host;  ///< kept until it has been copied
    Batch pinned, device;
    at::cuda::CUDAEvent copied;    ///< pinned memory may be written again
    at::cuda::CUDAEvent consumed;  ///< device memory may be written again
  };

  void make_room(Slot& slot, const Batch& like) const;

  TrainLoader& loader_;
  at::Device device_;
  c10::cuda::CUDAStream copies_;
  std::optional<c10::cuda::CUDAStream> consumer_;  // of the batch handed out last
  std::array<Slot, 2> slots_;
  std::size_t current_ = 1;  // slot handed out last; the other one is filled next
  bool ahead_ = false;       // the other one holds the next batch
};

}  // namespace ablate
