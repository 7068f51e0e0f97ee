#pragma once

#include <memory>

#include "datasets/loader.h"
#include "distributed/communicator.h"
#include "runner/measure/protocol.h"
#include "runner/train/finals.h"

namespace ablate {

class BatchFeeder;

/// A structure under a protocol on a CUDA device, on synthetic images that lie there unless told.
class DeviceBenchSubject {
 public:
  /// On torch's current device. Training steps with a communicator reduce their gradients over its
  /// ranks, which then have to do the same repetitions.
  DeviceBenchSubject(const Structure& structure, const Protocol& protocol,
                     Communicator* communicator = nullptr);
  /// Training on `first`, which may lie anywhere, instead of synthetic images. Images are rounded
  /// to bfloat16 where a run does so.
  DeviceBenchSubject(const Structure& structure, const Protocol& protocol, const Batch& first);
  ~DeviceBenchSubject();
  DeviceBenchSubject(const DeviceBenchSubject&) = delete;
  DeviceBenchSubject& operator=(const DeviceBenchSubject&) = delete;

  /// Forward passes or whole steps; returns when the device has done them.
  void repeat(std::int64_t times);
  bool half_images() const;
  /// Steps on batches like the first, as a run takes them from a feeder. Seconds that the device
  /// waited for images.
  double repeat_fed(std::int64_t times, BatchFeeder& feeder);
  /// A window of repetitions, long enough that waiting for its end costs nothing: forward passes,
  /// or whole steps with AdamW. Returns when the device has done them. Throws BugError when a loss
  /// is not finite.
  void run_window();
  /// Repetitions of a window; the first call measures.
  std::int64_t window();
  /// Ranks have to agree.
  void set_window(std::int64_t repetitions) { window_ = repetitions; }

 private:
  struct State;

  DeviceBenchSubject(const Structure& structure, const Protocol& protocol,
                     Communicator* communicator, const Batch* first);

  std::unique_ptr<State> state_;
  std::int64_t window_ = 0;
};

/// Makes the device torch's current one.
void choose_device(int index);
void wait_for_device();

/// Bytes that LibTorch's allocator has taken from the device at most, since the last reset.
std::int64_t device_peak_bytes();
void reset_device_peak();
/// Bytes that it holds now, in use or not.
std::int64_t device_held_bytes();

}  // namespace ablate
