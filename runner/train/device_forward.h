#pragma once

#include <memory>

#include "methods/models/fused/context.h"

namespace ablate {

class Model;

/// Forward passes of one model in evaluation mode on a CUDA device, with fused operations, one
/// captured graph for its batch. Weights are copied when it is made; made anew when they change.
class DeviceForward {
 public:
  DeviceForward(Model& model, std::int64_t batch);
  ~DeviceForward();
  DeviceForward(const DeviceForward&) = delete;
  DeviceForward& operator=(const DeviceForward&) = delete;

  /// Enqueues a pass over images (batch, 3, S, S); returns before it has run. They are copied
  /// unless they are inputs().
  void enqueue(const at::Tensor& images);
  /// What passes read, on the device: for callers that can write their images there.
  const at::Tensor& inputs() const { return images_; }
  /// Waits; the logits of the last pass.
  const at::Tensor& wait();

 private:
  void run();

  Model& model_;
  c10::cuda::CUDAStream stream_;
  FusedContext context_;
  at::Tensor images_, logits_;
  int eager_passes_ = 0;
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
};

}  // namespace ablate
