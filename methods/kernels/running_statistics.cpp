#include "methods/kernels/running_statistics.h"

namespace ablate::kernels::reference {

void update_running_statistics(const RunningUpdate& arguments) {
  if (arguments.finite != nullptr && *arguments.finite == 0) return;
  for (std::int64_t i = 0; i < arguments.count; ++i) {
    const RunningStatistics& entry = arguments.entries[i];
    for (std::int64_t c = 0; c < entry.channels; ++c) {
      entry.mean[c] = static_cast<float>(entry.keep * entry.mean[c] + entry.share[c]);
      entry.var[c] =
          static_cast<float>(entry.keep * entry.var[c] + entry.share[entry.channels + c]);
    }
    if (entry.batches != nullptr) *entry.batches += entry.groups;
  }
}

}  // namespace ablate::kernels::reference
