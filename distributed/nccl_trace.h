#pragma once

#include <cstdint>
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

  /// The collectives that follow are counted from 1.
  void step_begun() { ordinal_ = 0; }
  /// Behind a collective on `stream`. Enqueues 8 bytes; neither waits nor allocates.
  void mark(const std::string& what, CUstream_st* stream, bool captured);
  /// "all_reduce of 65536 Float, number 2 of the step". From any thread.
  std::string last() const;

 private:
  // Captured collectives keep their number for as long as their graph, others take turns.
  static constexpr std::int64_t kKept = 4096, kInTurns = 4096;

  std::int64_t* numbers_ = nullptr;   // 0, 1, 2, ... on the device
  std::int64_t* finished_ = nullptr;  // pinned
  std::vector<std::string> labels_;
  std::int64_t kept_ = 0, turn_ = 0, ordinal_ = 0;
};

}  // namespace ablate
