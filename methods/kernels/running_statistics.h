#pragma once

#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

/// One normalisation's running statistics and what a step adds to them. In device memory, as an
/// array.
struct RunningStatistics {
  float* mean = nullptr;            ///< (channels)
  float* var = nullptr;             ///< (channels)
  std::int64_t* batches = nullptr;  ///< groups that went by; null: not counted
  const double* share = nullptr;    ///< (2, channels), of RunningShare, added up over ranks
  std::int64_t channels = 0;
  std::int64_t groups = 0;  ///< of the step
  double keep = 1.0;        ///< (1 - momentum)^groups
};

/// For every entry r <- keep r + share, in double; nothing when `finite` points to 0: the numbers
/// of that step are not kept.
struct RunningUpdate {
  const RunningStatistics* entries = nullptr;
  std::int64_t count = 0;
  const std::int32_t* finite = nullptr;  ///< in device memory; null: always
};

void update_running_statistics(const RunningUpdate& arguments, Stream stream);

namespace reference {
void update_running_statistics(const RunningUpdate& arguments);
}  // namespace reference

}  // namespace ablate::kernels
