#include "runner/worker/loader_threads.h"

#include <algorithm>
#include <string>
#include <vector>

#include "distributed/communicator.h"
#include "runner/core/cpu_quota.h"
#include "runner/core/error.h"
#include "runner/core/process.h"

namespace ablate {

int spare_loader_threads(Communicator& world, int runs) {
  const std::vector<int> cpus = available_cpus();
  std::string own = host_name();
  for (const int cpu : cpus) own += cat(" ", cpu);
  const std::vector<std::string> all = world.all_gather(own);
  const auto sharing = static_cast<int>(std::ranges::count(all, own));
  return std::max(1, usable_cpus() / (sharing * runs) - 1);
}

}  // namespace ablate
