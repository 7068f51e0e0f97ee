#pragma once

#include <vector>

#include "runner/torch/torch.h"

namespace ablate {

/// A tensor that never changes, with a copy for every device and type that asked: a captured graph
/// goes on reading the one that it was captured with. No buffer of its module, so no part of
/// weights.
class DeviceConstant {
 public:
  DeviceConstant() = default;
  /// In main memory.
  explicit DeviceConstant(at::Tensor value) : copies_{std::move(value)} {}

  bool defined() const { return !copies_.empty(); }
  /// The copy on that device; the first call for a device must not be captured.
  const at::Tensor& on(at::Device device) { return on(copies_.front().options().device(device)); }
  const at::Tensor& on(const at::TensorOptions& options);

 private:
  std::vector<at::Tensor> copies_;
};

}  // namespace ablate
