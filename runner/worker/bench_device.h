#pragma once

#include <memory>

#include "runner/measure/protocol.h"
#include "runner/train/finals.h"

namespace ablate {

/// A structure under a protocol on a CUDA device, on synthetic images that lie there.
class DeviceBenchSubject {
 public:
  DeviceBenchSubject(const Structure& structure, const Protocol& protocol);
  ~DeviceBenchSubject();
  DeviceBenchSubject(const DeviceBenchSubject&) = delete;
  DeviceBenchSubject& operator=(const DeviceBenchSubject&) = delete;

  /// A window of repetitions, long enough that waiting for its end costs nothing: forward passes,
  /// or whole steps with AdamW. Returns when the device has done them. Throws BugError when a loss
  /// is not finite.
  void run_window();
  /// Repetitions of a window; the first call measures.
  std::int64_t window();

 private:
  struct State;
  void repeat(std::int64_t times);

  std::unique_ptr<State> state_;
  std::int64_t window_ = 0;
};

/// Bytes that LibTorch's allocator has taken from the device at most, since the last reset.
std::int64_t device_peak_bytes();
void reset_device_peak();

}  // namespace ablate
