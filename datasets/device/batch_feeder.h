#pragma once

#include <cstdint>

#include "datasets/loader.h"

namespace ablate {

/// Brings the micro-batches of training to a CUDA device, one beside the work on the one before.
/// For programs with CUDA alone.
///
///   feeder.seek(epoch, step);
///   for (...) {
///     const Batch& batch = feeder.next(stream);
///     ... enqueue work on `stream` ...
///     feeder.prefetch();
///   }
class BatchFeeder {
 public:
  virtual ~BatchFeeder() = default;

  virtual std::int64_t steps_per_epoch() const = 0;
  /// As TrainLoader::seek(); a batch fetched ahead is dropped.
  virtual void seek(std::int64_t epoch, std::int64_t step_in_epoch) = 0;

  /// The next micro-batch, on the device, for work enqueued on `stream` from now on. Valid for what
  /// is enqueued there until the next call. Throws what the loader throws.
  virtual const Batch& next(const c10::cuda::CUDAStream& stream) = 0;

  /// Takes the batch after it from the loader and sends it on its way: to be called when the work
  /// on the present one is enqueued. The calling thread may wait for the loader. Not between
  /// capture_begin() and capture_end() of a graph.
  virtual void prefetch() = 0;

  /// As TrainLoader's.
  virtual double take_wait_seconds() = 0;
  virtual StageSeconds take_stage_seconds() = 0;
};

}  // namespace ablate
