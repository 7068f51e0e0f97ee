#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "runner/torch/torch.h"

namespace ablate {

/// Bytes that tensors of this thread hold, from LibTorch's own reports: CPU allocations made while
/// the meter lives, by this thread and by the backward passes it starts, less those freed. Memory
/// that libraries take by themselves (threads, scratch of matrix products) is not in it, nor what
/// was there before, so the numbers do not depend on the machine's state.
class MemoryMeter {
 public:
  MemoryMeter();
  ~MemoryMeter();
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;

  std::int64_t current() const;
  /// The largest current() since construction or the last reset.
  std::int64_t peak() const;
  void reset_peak();

 private:
  class Reporter;
  std::shared_ptr<Reporter> reporter_;
  c10::DebugInfoGuard guard_;
};

/// The largest batch of at most `limit` images whose peak stays within `budget` bytes; 0 when one
/// image does not. `peak_bytes` must not fall with the batch; where it is nearly affine, as for
/// networks, some five batches are tried.
std::int64_t find_max_batch(const std::function<std::int64_t(std::int64_t batch)>& peak_bytes,
                            std::int64_t budget, std::int64_t limit);

/// What trying whether batches fit has found.
struct FittingBatch {
  std::int64_t fits = 0;       ///< the largest that did; 0: not even one image
  std::int64_t too_large = 0;  ///< the smallest that did not; 0: everything up to the limit fits
};

/// For where nothing but a trial tells: doubles from `start` (or halves), then halves the interval
/// until its ends differ by one image or 1/64.
FittingBatch find_fitting_batch(const std::function<bool(std::int64_t batch)>& fits,
                                std::int64_t start, std::int64_t limit);

}  // namespace ablate
