#include "runner/core/cpu_quota.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>

#include "runner/core/process.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

/// "QUOTA PERIOD" in microseconds; QUOTA is "max" where there is none.
std::optional<double> quota_of_version_2(const fs::path& group) {
  std::ifstream in(group / "cpu.max");
  double quota = 0, period = 0;
  if (!(in >> quota >> period) || period <= 0) return std::nullopt;
  return quota / period;
}

/// Each in a file of its own; the quota is -1 where there is none.
std::optional<double> quota_of_version_1(const fs::path& group) {
  std::ifstream quota_file(group / "cpu.cfs_quota_us"), period_file(group / "cpu.cfs_period_us");
  double quota = 0, period = 0;
  if (!(quota_file >> quota) || !(period_file >> period) || quota <= 0 || period <= 0) {
    return std::nullopt;
  }
  return quota / period;
}

/// The least of a group and all that it lies in: within a container the path may be the host's,
/// and its upper end alone be there.
template <typename Quota>
std::optional<double> least_quota(const fs::path& mount, fs::path group, const Quota& quota_of) {
  std::optional<double> least;
  while (true) {
    const std::optional<double> quota = quota_of(mount / group);
    if (quota && (!least || *quota < *least)) least = quota;
    if (group.empty()) return least;
    group = group.parent_path();
  }
}

bool has_cpu_controller(const std::string& controllers) {
  std::istringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');) {
    if (name == "cpu") return true;
  }
  return false;
}

}  // namespace

std::optional<double> cpu_quota(const fs::path& groups, const fs::path& own) {
  std::ifstream in(own);
  for (std::string line; std::getline(in, line);) {  // HIERARCHY:CONTROLLERS:/PATH
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = fs::path(line.substr(second + 1)).relative_path();
    std::optional<double> quota;
    if (controllers.empty()) quota = least_quota(groups, group, quota_of_version_2);
    if (has_cpu_controller(controllers)) {
      quota = least_quota(groups / controllers, group, quota_of_version_1);
      if (!quota) quota = least_quota(groups / "cpu", group, quota_of_version_1);
    }
    if (quota) return quota;
  }
  return std::nullopt;
}

int usable_cpus() {
  const auto cpus = static_cast<int>(available_cpus().size());
  const std::optional<double> quota = cpu_quota();
  if (!quota) return cpus;
  return std::clamp(static_cast<int>(std::ceil(*quota)), 1, cpus);
}

}  // namespace ablate
