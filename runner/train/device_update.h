#pragma once

#include "methods/kernels/optimizer.h"
#include "runner/train/optimizer.h"

namespace ablate {

/// What an optimizer update needs in the memory of a CUDA device: the table of chunks, the numbers
/// of the step, the outcome. Belongs to one layout of the arena; made anew after rebuild().
class DeviceUpdate {
 public:
  struct Options {
    bool ema = false;
    bool working = true;  ///< keeps the arena's bfloat16 copies
    at::Tensor
        loss{};  ///< double, first element: not finite leaves the update out; may be undefined
  };

  /// Counting goes on from arena.updates().
  DeviceUpdate(ParameterArena& arena, const DecaySettings& decay, Options options);

  /// The arguments of the update kernels.
  kernels::FlatUpdate flat();
  void* workspace() { return workspace_.data_ptr(); }

  /// Bytes of a kernels::UpdateScalars, to be written before the step.
  const at::Tensor& scalars() const { return scalars_; }
  /// Bytes of a kernels::UpdateStatus.
  const at::Tensor& status() const { return status_; }
  /// UpdateStatus::finite, a scalar.
  at::Tensor finite() const;

 private:
  ParameterArena& arena_;
  Options options_;
  std::int64_t chunk_count_;
  at::Tensor chunks_, scalars_, status_, workspace_;
};

/// Of this thread, for kernels.
kernels::Stream current_stream();

}  // namespace ablate
