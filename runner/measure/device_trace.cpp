#include "runner/measure/device_trace.h"

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/measure/cuda_devices.h"
#include "runner/torch/profiler.h"

namespace ablate {
namespace {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

const std::set<ActivityType>& recorded() {
  static const std::set<ActivityType> set{ActivityType::CPU, ActivityType::CUDA};
  return set;
}

void wait_for_devices() {
#if ABLATE_HAS_CUDA
  if (!find_cuda_devices().devices.empty()) c10::cuda::device_synchronize();
#endif
}

/// Annotations and synchronisations carry a device too, but nothing runs there for them.
bool is_work(const profiler::KinetoEvent& event) {
  const auto type = static_cast<libkineto::ActivityType>(event.activityType());
  return event.deviceType() == c10::DeviceType::CUDA &&
         (type == libkineto::ActivityType::CONCURRENT_KERNEL ||
          type == libkineto::ActivityType::GPU_MEMCPY ||
          type == libkineto::ActivityType::GPU_MEMSET);
}

}  // namespace

DeviceTrace::DeviceTrace() {
  wait_for_devices();
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  profiler::prepareProfiler(config, recorded());
  profiler::enableProfiler(config, recorded(), {at::RecordScope::FUNCTION});
}

DeviceTrace::~DeviceTrace() {
  if (running_) profiler::disableProfiler();
}

std::vector<DeviceActivity> DeviceTrace::stop(const std::filesystem::path& chrome_file) {
  ABLATE_CHECK(running_, "a trace is stopped once");
  wait_for_devices();
  running_ = false;
  const auto result = profiler::disableProfiler();
  const std::filesystem::path fresh = chrome_file.string() + ".fresh";
  make_directories(std::filesystem::absolute(chrome_file).parent_path());
  result->save(fresh.string());
  std::error_code failed;
  std::filesystem::rename(fresh, chrome_file, failed);
  if (failed) throw Error(cat("cannot write ", chrome_file.string(), ": ", failed.message()));
  std::vector<DeviceActivity> activities;
  for (const profiler::KinetoEvent& event : result->events()) {
    if (!is_work(event)) continue;
    activities.push_back({.name = event.name(),
                          .start_ns = static_cast<std::int64_t>(event.startNs()),
                          .end_ns = static_cast<std::int64_t>(event.endNs())});
  }
  return activities;
}

}  // namespace ablate
