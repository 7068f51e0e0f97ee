#pragma once

#include <filesystem>
#include <optional>

namespace ablate {

/// How many processors' time the control groups (of version 1 or 2) of this process grant it, as
/// containers are limited; nothing where there is no limit. `groups` is where they are mounted,
/// `own` the file that says which are the process's.
std::optional<double> cpu_quota(const std::filesystem::path& groups = "/sys/fs/cgroup",
                                const std::filesystem::path& own = "/proc/self/cgroup");

/// How many threads can be busy at once: available_cpus(), and no more than cpu_quota(); at least
/// 1.
int usable_cpus();

}  // namespace ablate
