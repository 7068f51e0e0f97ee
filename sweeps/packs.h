#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "sweeps/pack_sizes.h"
#include "sweeps/schedule_state.h"

namespace ablate {

/// Which runs share a process.
class Packs {
 public:
  Packs(std::optional<int> runs_per_gpu, TrialTimes times) : sizes_(runs_per_gpu), times_(times) {}

  /// The runs of the next process: the first that is ready, and others of its shape. Empty when no
  /// run is ready.
  std::vector<ScheduleEntry*> next(std::vector<ScheduleEntry>& entries) const;
  /// Runs that begin now at a place whose GPUs have so much memory.
  void began(const std::vector<ScheduleEntry*>& runs, std::uint64_t gpu_bytes);
  /// Measures trials. A trial that is over, and after which more runs should share a process, ends
  /// with checkpoints when there are more.
  void follow(std::vector<ScheduleEntry>& entries);
  /// A run has ended; still of its pack.
  void ended(const ScheduleEntry& entry, const Outcome& outcome);

 private:
  void measure(Pack& pack, const std::vector<ScheduleEntry*>& members);

  PackSizes sizes_;
  TrialTimes times_;
};

}  // namespace ablate
