#pragma once

#include <mutex>
#include <vector>

#include "runner/torch/torch.h"

namespace ablate {

/// Gives out tensors of the host and takes them up again when nobody holds them any more: fresh
/// memory for every batch would be paid for page by page. Thread-safe.
class TensorPool {
 public:
  /// `pinned`: in memory that a CUDA device copies from by itself.
  explicit TensorPool(bool pinned = false) : pinned_(pinned) {}

  /// A contiguous tensor; values are unspecified.
  at::Tensor take(at::IntArrayRef sizes, at::ScalarType dtype);
  /// One of at least so many bytes.
  at::Tensor take_bytes(std::int64_t least);

 private:
  template <typename Fits>
  at::Tensor find(const Fits& fits);
  at::Tensor make(at::IntArrayRef sizes, at::ScalarType dtype);

  bool pinned_;
  std::mutex mutex_;
  std::vector<at::Tensor> known_;
};

}  // namespace ablate
