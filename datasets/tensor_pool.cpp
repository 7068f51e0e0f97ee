#include "datasets/tensor_pool.h"

#include <algorithm>
#include <atomic>

namespace ablate {

/// A known tensor that nobody holds but the pool; undefined if there is none.
template <typename Fits>
at::Tensor TensorPool::find(const Fits& fits) {
  const auto found = std::ranges::find_if(known_, [&](const at::Tensor& tensor) {
    return tensor.use_count() == 1 && tensor.storage().use_count() == 1 && fits(tensor);
  });
  if (found == known_.end()) return {};
  std::atomic_thread_fence(std::memory_order_acquire);  // after the last holder's reads
  return *found;
}

at::Tensor TensorPool::make(at::IntArrayRef sizes, at::ScalarType dtype) {
  // Tensors of sizes that are no longer asked for.
  std::erase_if(known_, [&](const at::Tensor& tensor) {
    return tensor.use_count() == 1 && tensor.scalar_type() == dtype &&
           tensor.dim() == std::ssize(sizes);
  });
  known_.push_back(at::empty(sizes, at::TensorOptions().dtype(dtype).pinned_memory(pinned_)));
  return known_.back();
}

at::Tensor TensorPool::take(at::IntArrayRef sizes, at::ScalarType dtype) {
  const std::lock_guard lock(mutex_);
  const at::Tensor found = find([&](const at::Tensor& tensor) {
    return tensor.scalar_type() == dtype && tensor.sizes() == sizes;
  });
  return found.defined() ? found : make(sizes, dtype);
}

at::Tensor TensorPool::take_bytes(std::int64_t least) {
  const std::lock_guard lock(mutex_);
  const at::Tensor found = find([&](const at::Tensor& tensor) {
    return tensor.scalar_type() == at::kByte && tensor.dim() == 1 && tensor.numel() >= least;
  });
  return found.defined() ? found : make({least}, at::kByte);
}

}  // namespace ablate
