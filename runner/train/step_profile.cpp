#include "runner/train/step_profile.h"

#include <iostream>

#include <nlohmann/json.hpp>

#include "runner/core/log.h"
#include "runner/core/text.h"

namespace ablate {

using nlohmann::json;

json to_json(const DeviceBreakdown& breakdown) {
  json milliseconds = json::object();
  double kernels = 0;
  for (const KernelClass kernel_class : kKernelClasses) {
    const auto& share = breakdown.shares[static_cast<std::size_t>(kernel_class)];
    kernels += share.count;
    if (share.count > 0) milliseconds[std::string(name_of(kernel_class))] = 1e3 * share.seconds;
  }
  return {{"ms", std::move(milliseconds)},
          {"busy_ms", 1e3 * breakdown.busy},
          {"span_ms", 1e3 * breakdown.span},
          {"kernels", kernels}};
}

std::string profile_text(const DeviceBreakdown& breakdown, bool on_device, std::int64_t steps,
                         const std::filesystem::path& trace) {
  const std::string head = cat("profile of ", steps, " steps: ", trace.string());
  if (!on_device) return head + "; no device, hence no times by class of kernel\n";
  if (breakdown.sum == 0) {
    return head +
           "; nothing was recorded of the device: CUPTI is missing, not allowed, or held by "
           "another profiler\n";
  }
  return cat(head, "; device time of a step:\n", breakdown.table());
}

StepProfile::~StepProfile() {
  if (reported_) return;
  log_warning(cat("no profile: it takes the steps ", kSkipped, " to ", kSkipped + kRecorded,
                  " of this attempt and one more, which had ", seen_));
}

void StepProfile::before_step(std::int64_t step) {
  if (seen_ == kSkipped) trace_ = std::make_unique<DeviceTrace>();
  if (seen_ == kSkipped + kRecorded) {
    report(step - 1, DeviceBreakdown::of(trace_->stop(file_), kRecorded));
    trace_.reset();
  }
  ++seen_;
}

void StepProfile::report(std::int64_t step, const DeviceBreakdown& breakdown) {
  json body = to_json(breakdown);
  for (const auto& [name, value] : body.at("ms").items()) {
    log_.timing(cat("profile/", name, "_ms"), step, value.get<double>(), "ms");
  }
  body["trace"] = file_.string();
  body["steps"] = kRecorded;
  log_.event(step, "profile", body);
  reported_ = true;
  log_info(profile_text(breakdown, on_device_, kRecorded, file_));
}

}  // namespace ablate
