#include "distributed/nccl_trace.h"

#include <atomic>

#include <cuda_runtime.h>

#include "runner/core/text.h"

namespace ablate {

NcclTrace::NcclTrace(int device)
    : numbers_(at::arange(kKept + kInTurns, at::TensorOptions().dtype(at::kLong).device(
                                                at::kCUDA, static_cast<c10::DeviceIndex>(device)))),
      finished_(at::full({1}, -1, at::TensorOptions().dtype(at::kLong).pinned_memory(true))),
      labels_(kKept + kInTurns) {
  c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).synchronize();
}

void NcclTrace::mark(const std::string& what, c10::cuda::CUDAStream stream, bool captured) {
  ++ordinal_;
  if (captured && kept_ == kKept) return;
  const std::int64_t number = captured ? kept_++ : kKept + turn_++ % kInTurns;
  labels_[static_cast<std::size_t>(number)] = cat(what, ", number ", ordinal_, " of the step");
  cudaMemcpyAsync(finished_.data_ptr(), numbers_.const_data_ptr<std::int64_t>() + number,
                  sizeof number, cudaMemcpyDeviceToHost, stream.stream());
}

std::string NcclTrace::last() const {
  const std::int64_t number =
      std::atomic_ref<std::int64_t>(*finished_.data_ptr<std::int64_t>()).load();
  return number < 0 ? "none" : labels_[static_cast<std::size_t>(number)];
}

}  // namespace ablate
