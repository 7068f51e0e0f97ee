#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runner/torch/torch.h"

namespace ablate {

/// Which collective a device has finished last, also when a captured graph replays it and the host
/// knows nothing: behind each, the device copies its number to host memory.
class NcclTrace {
 public:
  explicit NcclTrace(int device);

  /// The collectives that follow are counted from 1.
  void step_begun() { ordinal_ = 0; }
  /// Behind a collective on `stream`.
  void mark(const std::string& what, c10::cuda::CUDAStream stream, bool captured);
  /// "all_reduce of 65536 Float, number 2 of the step". From any thread.
  std::string last() const;

 private:
  // Captured collectives keep their number for as long as their graph, others take turns.
  static constexpr std::int64_t kKept = 4096, kInTurns = 4096;

  at::Tensor numbers_;   // 0, 1, 2, ... on the device
  at::Tensor finished_;  // pinned
  std::vector<std::string> labels_;
  std::int64_t kept_ = 0, turn_ = 0, ordinal_ = 0;
};

}  // namespace ablate
