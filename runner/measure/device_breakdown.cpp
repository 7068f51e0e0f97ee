#include <algorithm>
#include <iomanip>
#include <sstream>

#include "runner/core/error.h"
#include "runner/measure/device_trace.h"

namespace ablate {
namespace {

/// Nanoseconds covered by at least one activity.
std::int64_t covered(std::vector<DeviceActivity> activities) {
  std::ranges::sort(activities, {}, &DeviceActivity::start_ns);
  std::int64_t total = 0, until = 0;
  for (const DeviceActivity& activity : activities) {
    const std::int64_t start = std::max(activity.start_ns, until);
    if (activity.end_ns > start) total += activity.end_ns - start;
    until = std::max(until, activity.end_ns);
  }
  return total;
}

}  // namespace

DeviceBreakdown DeviceBreakdown::of(const std::vector<DeviceActivity>& activities,
                                    std::int64_t repetitions) {
  ABLATE_CHECK(repetitions > 0);
  DeviceBreakdown result;
  if (activities.empty()) return result;
  const double each = 1.0 / static_cast<double>(repetitions);
  std::int64_t first = activities.front().start_ns, last = activities.front().end_ns;
  for (const DeviceActivity& activity : activities) {
    const double seconds = 1e-9 * static_cast<double>(activity.end_ns - activity.start_ns);
    Share& share = result.shares[static_cast<std::size_t>(classify_kernel(activity.name))];
    share.seconds += each * seconds;
    share.count += each;
    result.sum += each * seconds;
    first = std::min(first, activity.start_ns);
    last = std::max(last, activity.end_ns);
  }
  result.busy = each * 1e-9 * static_cast<double>(covered(activities));
  result.span = each * 1e-9 * static_cast<double>(last - first);
  return result;
}

std::string DeviceBreakdown::table() const {
  std::ostringstream text;
  text << std::fixed;
  const auto line = [&](std::string_view name, double seconds, double whole) {
    text << "  " << std::left << std::setw(16) << name << std::right << std::setw(10)
         << std::setprecision(3) << 1e3 * seconds << " ms" << std::setw(7) << std::setprecision(1)
         << (whole > 0 ? 100 * seconds / whole : 0) << " %";
  };
  for (const KernelClass kernel_class : kKernelClasses) {
    const Share& share = shares[static_cast<std::size_t>(kernel_class)];
    if (share.count == 0) continue;
    line(name_of(kernel_class), share.seconds, sum);
    text << std::setw(9) << std::setprecision(1) << share.count << " x\n";
  }
  line("idle", span - busy, span);
  text << " of " << std::setprecision(3) << 1e3 * span << " ms\n";
  return text.str();
}

}  // namespace ablate
