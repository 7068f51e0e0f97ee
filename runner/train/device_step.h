#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "methods/models/fused/context.h"
#include "methods/models/fused/joins.h"
#include "runner/train/device_update.h"
#include "runner/train/task.h"

namespace ablate {

/// What changes from one device step to the next.
struct DeviceStepNumbers {
  std::int64_t step = 0;
  double lr = 0.0;
  double clip_norm = 0.0;  ///< 0: off
  double ema_decay = 0.0;  ///< 0: no average
};

/// What a device step found, on the host.
struct DeviceStepResult {
  double loss = 0.0;
  double grad_norm = 0.0;
  bool finite = false;  ///< otherwise nothing was updated
};

/// Optimizer steps of one model on one CUDA device with fused operations. The first steps run
/// eagerly, which lets libraries choose their algorithms; then one step is captured into a CUDA
/// graph and replayed. Made anew after every structural edit.
class DeviceStep {
 public:
  struct Parts {
    Model& model;
    const Task& task;
    const Optimizer& optimizer;
    ParameterArena& arena;
    std::int64_t batch;           ///< images of a step on this rank
    std::int64_t first_position;  ///< of this rank's slice in the global batch
    std::uint64_t seed;
    bool ema;
  };

  explicit DeviceStep(const Parts& parts);
  ~DeviceStep();
  DeviceStep(const DeviceStep&) = delete;
  DeviceStep& operator=(const DeviceStep&) = delete;

  /// Enqueues one step on the batch; returns before it has run. The batch may be host or device
  /// memory and must have parts.batch rows; it is copied unless it is inputs().
  void enqueue(const Batch& batch, const DeviceStepNumbers& numbers);
  /// What steps read, on the device: for callers that can write their batch there.
  const Batch& inputs() const { return inputs_; }

  /// Waits for the last step enqueued.
  DeviceStepResult wait();

  FusedContext& context() { return context_; }

 private:
  void load_inputs(const Batch& batch);
  void write_numbers(const DeviceStepNumbers& numbers);
  void run();
  void capture();

  Parts parts_;
  c10::cuda::CUDAStream stream_;
  FusedContext context_;
  DeviceUpdate update_;
  DeviceJoins joins_;
  Batch inputs_;
  at::Tensor loss_, staging_;
  at::cuda::CUDAEvent staged_;
  std::int64_t eager_steps_ = 0;
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
};

}  // namespace ablate
