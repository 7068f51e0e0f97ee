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

}  // namespace ablate
