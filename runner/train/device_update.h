#pragma once

#include "methods/kernels/optimizer.h"
#include "runner/train/optimizer.h"

namespace ablate {

/// What an optimizer update needs in the memory of a CUDA device: the table of chunks, the numbers
/// of the step, the outcome. Belongs to one layout of the arena; made anew after rebuild().
class DeviceUpdate {
 public:
  DeviceUpdate(ParameterArena& arena, const DecaySettings& decay, bool ema);

  /// The arguments of the update kernels.
  kernels::FlatUpdate flat();
  void* workspace() { return workspace_.data_ptr(); }

  /// Bytes of a kernels::UpdateScalars, to be written before the step.
  const at::Tensor& scalars() const { return scalars_; }
  /// Bytes of a kernels::UpdateStatus.
  const at::Tensor& status() const { return status_; }

 private:
  ParameterArena& arena_;
  bool ema_;
  std::int64_t chunk_count_;
  at::Tensor chunks_, scalars_, status_, workspace_;
};

/// Of this thread, for kernels.
kernels::Stream current_stream();

}  // namespace ablate
