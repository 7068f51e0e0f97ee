#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "runner/measure/device_trace.h"
#include "runner/train/run_log.h"

namespace ablate {

/// {"ms": {"gemm": 9.4, ...}, "busy_ms", "span_ms", "kernels"}, of one repetition.
nlohmann::json to_json(const DeviceBreakdown& breakdown);

/// What people read about a profile: where the trace is and the table, or why there is none.
std::string profile_text(const DeviceBreakdown& breakdown, bool on_device, std::int64_t steps,
                         const std::filesystem::path& trace);

/// Records a few steps of a run, some steps after its start (captures and the choice of algorithms
/// are over by then).
class StepProfile {
 public:
  /// `file` gets the Chrome trace. The log gets an event "profile" and, on a device, numbers
  /// "profile/<class>_ms".
  StepProfile(std::filesystem::path file, bool on_device, RunLog& log)
      : file_(std::move(file)), on_device_(on_device), log_(log) {}
  /// Warns when the run was too short.
  ~StepProfile();
  StepProfile(const StepProfile&) = delete;
  StepProfile& operator=(const StepProfile&) = delete;

  /// To be called before every step that this process makes.
  void before_step(std::int64_t step);

 private:
  static constexpr std::int64_t kSkipped = 10, kRecorded = 5;

  void report(std::int64_t step, const DeviceBreakdown& breakdown);

  std::filesystem::path file_;
  bool on_device_;
  RunLog& log_;
  std::int64_t seen_ = 0;
  bool reported_ = false;
  std::unique_ptr<DeviceTrace> trace_;
};

}  // namespace ablate
