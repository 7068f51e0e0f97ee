#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "datasets/loader.h"

namespace ablate {

/// Brings the batches of a TrainLoader to a CUDA device: through pinned memory and on a stream of
/// its own, so that the copy of one batch runs beside the work on the batch before. For programs
/// with CUDA alone.
///
///   feeder.seek(epoch, step);
///   for (...) {
///     const Batch& batch = feeder.next(stream);
///     ... enqueue work on `stream` ...
///     feeder.prefetch();
///   }
class PinnedFeeder {
 public:
  /// The loader must outlive the feeder, and nobody else asks it for batches.
  PinnedFeeder(TrainLoader& loader, at::Device device);
  /// Waits for the copies and the work that read them.
  ~PinnedFeeder();
  PinnedFeeder(const PinnedFeeder&) = delete;
  PinnedFeeder& operator=(const PinnedFeeder&) = delete;

  /// As TrainLoader::seek(); a batch fetched ahead is dropped.
  void seek(std::int64_t epoch, std::int64_t step_in_epoch);

  /// The next micro-batch, on the device, for work enqueued on `stream` from now on. Valid for what
  /// is enqueued there until the next call. Throws what the loader throws.
  const Batch& next(const c10::cuda::CUDAStream& stream);

  /// Takes the batch after it from the loader and sends it on its way: to be called when the work
  /// on the present one is enqueued. The calling thread may wait for the loader. Not between
  /// capture_begin() and capture_end() of a graph.
  void prefetch();

 private:
  struct Slot {
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
