#pragma once

#include <cstdint>
#include <string>

#include "runner/core/params.h"
#include "runner/core/schedule.h"

namespace ablate {

/// How a loss or gradient that is not finite is met.
enum class NanPolicy {
  Stop,  ///< the run ends as diverged
  Skip,  ///< the update is left out and recorded
};

/// The settings of a run that belong to no registered component.
struct TrainingOptions {
  std::int64_t epochs;  ///< those of `steps`, the last one counted whole, where these are given
  std::int64_t steps;   ///< 0: whole epochs
  std::int64_t global_batch;
  std::int64_t mix_group;
  std::int64_t bn_group;
  std::string precision;  ///< "fp32", "fp64" or "bf16"
  std::string kernels;    ///< "reference", or "fused" with bf16
  std::string wire;       ///< "fp32" or "bf16": of gradients between CUDA devices
  double clip_norm;       ///< 0: off
  double ema_decay;       ///< 0: no EMA
  std::int64_t evaluate_every;
  NanPolicy on_nan;
  std::string from_weights;  ///< "raw" or "ema": which weights of the init parent

  bool fused() const { return kernels == "fused"; }

  RunLength length(std::int64_t steps_per_epoch) const;

  /// Reads its keys from the run table; throws SpecError.
  static TrainingOptions read(Params& run);
};

}  // namespace ablate
