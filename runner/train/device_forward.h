#pragma once

#include <functional>
#include <optional>

#include "methods/models/fused/context.h"
#include "runner/train/device_graph.h"

namespace ablate {

class Model;

/// Forward passes of one model in evaluation mode on a CUDA device, one captured graph for its
/// batch. Belongs to a structure; works on a stream as DeviceStep does.
class DeviceForward {
 public:
  struct Parts {
    Model& model;
    std::int64_t batch;
    bool fused = true;  ///< operations in bfloat16; else plain ones
    /// As in DeviceStep::Parts.
    kernels::GemmChoices choices{};
    std::function<kernels::GemmChoices(const kernels::GemmChoices& found)> settle{};
  };

  explicit DeviceForward(Parts parts);
  ~DeviceForward();
  DeviceForward(const DeviceForward&) = delete;
  DeviceForward& operator=(const DeviceForward&) = delete;

  /// Takes over the model's present weights.
  void refresh_weights();

  /// Enqueues a pass over images (batch, 3, S, S); returns before it has run (the first one
  /// prepares and waits). They are copied unless they are inputs().
  void enqueue(const at::Tensor& images);
  /// What passes read, on the device: for callers that can write their images there.
  const at::Tensor& inputs() const { return images_; }
  /// The logits of the last pass, once its stream is done with it.
  const at::Tensor& logits() const { return logits_; }
  /// Waits; the logits of the last pass.
  const at::Tensor& wait();

 private:
  void prepare();
  void run();

  Parts parts_;
  c10::cuda::CUDAStream stream_;
  std::optional<FusedContext> context_;
  at::Tensor images_, logits_;
  bool prepared_ = false;
  DeviceGraph graph_;
};

}  // namespace ablate
