#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

struct CUstream_st;

namespace ablate {

/// Which collective a device has finished last, also when a captured graph replays it and the host
/// knows nothing: behind each, the device copies its number to host memory.
class NcclTrace {
 public:
  explicit NcclTrace(int device);
  ~NcclTrace();
  NcclTrace(const NcclTrace&) = delete;
  NcclTrace& operator=(const NcclTrace&) = delete;

  using Clock = std::chrono::steady_clock;

  /// The collectives that follow are counted from 1.
  void step_begun();
  /// Behind a collective on `stream`. Enqueues 8 bytes; neither waits nor allocates.
  void mark(const std::string& what, CUstream_st* stream, bool captured);
  // From any thread:
  /// "all_reduce of 65536 Float, number 2 of the step": the last one done.
  std::string last() const;
  /// Of the collectives outside captured graphs, the newest, when the device has not done it yet.
  struct Pending {
    std::string what;
    Clock::time_point since;
  };
  std::optional<Pending> pending() const;

 private:
  // Captured collectives keep their number for as long as their graph, others take turns.
  static constexpr std::int64_t kKept = 4096, kInTurns = 4096;

  void copy_behind(CUstream_st* stream, std::int64_t number, std::int64_t* target) const;

  std::int64_t* numbers_ = nullptr;   // 0, 1, 2, ... on the device
  std::int64_t* finished_ = nullptr;  // pinned: of all; of those outside graphs
  mutable std::mutex mutex_;          // of all below
  std::vector<std::string> labels_;
  std::int64_t kept_ = 0, turn_ = 0, ordinal_ = 0;
  std::int64_t newest_ = -1;  // outside graphs
  Clock::time_point newest_since_;
};

}  // namespace ablate
