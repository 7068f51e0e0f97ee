#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "runner/measure/kernel_class.h"

namespace ablate {

/// One kernel, copy or fill on a device.
struct DeviceActivity {
  std::string name;
  std::int64_t start_ns = 0, end_ns = 0;
};

/// Records what the process does between construction and stop(): operations of this thread and of
/// the backward passes it starts, and everything on CUDA devices, replayed graphs included. One at
/// a time in a process.
class DeviceTrace {
 public:
  DeviceTrace();
  /// Stops, without a file, unless stop() was called.
  ~DeviceTrace();
  DeviceTrace(const DeviceTrace&) = delete;
  DeviceTrace& operator=(const DeviceTrace&) = delete;

  /// Waits for the devices, writes the trace for chrome://tracing or Perfetto (atomically, its
  /// folder is made), and returns what ran on devices. Throws Error when the file cannot be
  /// written.
  std::vector<DeviceActivity> stop(const std::filesystem::path& chrome_file);

 private:
  bool running_ = true;
};

/// Where the device's time of some repetitions went; all times for one repetition.
struct DeviceBreakdown {
  struct Share {
    double seconds = 0;
    double count = 0;  ///< kernels and copies
  };
  std::array<Share, kKernelClasses.size()> shares{};  ///< in the order of kKernelClasses
  double sum = 0;   ///< of all shares; more than `busy` when streams overlap
  double busy = 0;  ///< something ran
  double span = 0;  ///< from the first start to the last end

  static DeviceBreakdown of(const std::vector<DeviceActivity>& activities,
                            std::int64_t repetitions);

  /// The table that people read: a line a class with time, share and count, then the idle rest.
  std::string table() const;
};

}  // namespace ablate
