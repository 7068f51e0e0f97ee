#pragma once

#include <cmath>
#include <cstdint>

#include "runner/torch/torch.h"

namespace ablate {

/// `count` numbers of mean 0 and variance 1 without a pattern, always the same: what benchmarks
/// work on. With numbers that repeat a device may take less power, and keep higher clocks, than
/// with photos; and token merging needs keys that differ.
inline at::Tensor bench_noise(std::int64_t count) {
  const at::Tensor numbers = at::arange(count, at::kDouble).mul_(12.9898).sin_().mul_(43758.5453);
  return numbers.remainder_(1).sub_(0.5).mul_(std::sqrt(12.0));
}

}  // namespace ablate
