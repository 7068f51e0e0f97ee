#pragma once

#include <memory>

#include "datasets/device/crop_loader.h"
#include "datasets/device/resident_loader.h"
#include "datasets/loader.h"

namespace ablate {

/// Batches of passes over a set in evaluation, wherever they are made; the semantics of EvalLoader.
class EvalBatches {
 public:
  virtual ~EvalBatches() = default;
  /// Begins a pass over the whole set.
  virtual void start() = 0;
  /// Batches of the pass, equal on all ranks.
  virtual std::int64_t batches() const = 0;
  /// Valid until the next call.
  virtual Batch next() = 0;
};

/// Made on the host.
std::unique_ptr<EvalBatches> make_host_batches(std::unique_ptr<EvalLoader> loader);
/// Made on the device that holds the set, on the current stream.
std::unique_ptr<EvalBatches> make_resident_batches(std::unique_ptr<ResidentEvalLoader> loader);
/// Decoded on the host, resampled on `device`, for work on the stream that is current. Only in
/// builds with CUDA.
std::unique_ptr<EvalBatches> make_cropped_batches(std::unique_ptr<CropEvalLoader> loader,
                                                  at::Device device);

}  // namespace ablate
