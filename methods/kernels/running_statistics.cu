#include "methods/kernels/cuda_check.h"
#include "methods/kernels/device.cuh"
#include "methods/kernels/running_statistics.h"

namespace ablate::kernels {
namespace {

constexpr unsigned kRunningThreads = 256;

/// As the host does it: a product and a sum, each rounded.
__device__ __forceinline__ void follow(float& value, double keep, double share) {
  value = static_cast<float>(__dadd_rn(__dmul_rn(static_cast<double>(value), keep), share));
}

/// One block an entry.
__global__ void __launch_bounds__(kRunningThreads) running_kernel(RunningUpdate a) {
  if (a.finite != nullptr && *a.finite == 0) return;
  const RunningStatistics entry = a.entries[blockIdx.x];
  for (std::int64_t c = threadIdx.x; c < entry.channels; c += kRunningThreads) {
    follow(entry.mean[c], entry.keep, entry.share[c]);
    follow(entry.var[c], entry.keep, entry.share[entry.channels + c]);
  }
  if (threadIdx.x == 0 && entry.batches != nullptr) *entry.batches += entry.groups;
}

}  // namespace

void update_running_statistics(const RunningUpdate& arguments, Stream stream) {
  if (arguments.count == 0) return;
  running_kernel<<<static_cast<unsigned>(arguments.count), kRunningThreads, 0, stream>>>(arguments);
  check_launch();
}

}  // namespace ablate::kernels
