#include "distributed/nccl_trace.h"

#include <atomic>
#include <numeric>

#include <cuda_runtime.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

void check_trace(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  throw TransientError(cat("CUDA: ", what, ": ", cudaGetErrorString(status)));
}

}  // namespace

NcclTrace::NcclTrace(int device) : labels_(kKept + kInTurns) {
  check_trace(cudaSetDevice(device), "cudaSetDevice");
  std::vector<std::int64_t> numbers(labels_.size());
  std::iota(numbers.begin(), numbers.end(), 0);
  const std::size_t bytes = numbers.size() * sizeof(std::int64_t);
  check_trace(cudaMallocHost(&finished_, 2 * sizeof *finished_), "cudaMallocHost");
  finished_[0] = finished_[1] = -1;
  check_trace(cudaMalloc(&numbers_, bytes), "cudaMalloc");
  check_trace(cudaMemcpy(numbers_, numbers.data(), bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
}

NcclTrace::~NcclTrace() {
  cudaFree(numbers_);
  cudaFreeHost(finished_);
}

void NcclTrace::step_begun() {
  const std::lock_guard lock(mutex_);
  ordinal_ = 0;
}

void NcclTrace::copy_behind(CUstream_st* stream, std::int64_t number, std::int64_t* target) const {
  check_trace(
      cudaMemcpyAsync(target, numbers_ + number, sizeof number, cudaMemcpyDeviceToHost, stream),
      "the mark behind a collective");
}

void NcclTrace::mark(const std::string& what, CUstream_st* stream, bool captured) {
  const std::lock_guard lock(mutex_);
  ++ordinal_;
  if (captured && kept_ == kKept) return;
  const std::int64_t number = captured ? kept_++ : kKept + turn_++ % kInTurns;
  labels_[static_cast<std::size_t>(number)] = cat(what, ", number ", ordinal_, " of the step");
  copy_behind(stream, number, &finished_[0]);
  if (captured) return;
  copy_behind(stream, number, &finished_[1]);
  newest_ = number;
  newest_since_ = Clock::now();
}

std::string NcclTrace::last() const {
  const std::lock_guard lock(mutex_);
  const std::int64_t number = std::atomic_ref<std::int64_t>(finished_[0]).load();
  return number < 0 ? "none" : labels_[static_cast<std::size_t>(number)];
}

std::optional<NcclTrace::Pending> NcclTrace::pending() const {
  const std::lock_guard lock(mutex_);
  if (newest_ < 0 || std::atomic_ref<std::int64_t>(finished_[1]).load() == newest_) return {};
  return Pending{.what = labels_[static_cast<std::size_t>(newest_)], .since = newest_since_};
}

}  // namespace ablate
