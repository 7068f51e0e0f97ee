#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "distributed/gradient_reducer.h"
#include "methods/models/fused/context.h"
#include "methods/models/fused/joins.h"
#include "methods/models/fused/norms.h"
#include "runner/train/device_graph.h"
#include "runner/train/device_update.h"
#include "runner/train/step_runner.h"

namespace ablate {

/// What changes from one device step to the next.
struct DeviceStepNumbers {
  std::int64_t step = 0;
  double lr = 0.0;
  double clip_norm = 0.0;  ///< 0: off
  double ema_decay = 0.0;  ///< 0: no average
  StepWishes wishes{};
};

/// What a device step found, on the host; equal on all ranks but for the time.
struct DeviceStepResult {
  double loss = 0.0;  ///< mean over the global batch
  double grad_norm = 0.0;
  bool finite = false;       ///< otherwise nothing was updated
  std::int64_t updates = 0;  ///< done so far
  StepWishes wishes{};       ///< of any rank
  double seconds = 0.0;      ///< from the end of the step before, or its own enqueueing
  double idle = 0.0;         ///< of these, before its images were there
};

/// Optimizer steps of one model on one CUDA device. The first steps run eagerly, which lets
/// libraries choose their algorithms; then one step is captured into a CUDA graph and replayed.
/// Made anew after every structural edit.
///
/// Works on the stream that is current at construction, or on one of its own when that is the
/// default one, which cannot be captured.
class DeviceStep {
 public:
  struct Parts {
    Model& model;
    const Optimizer& optimizer;
    ParameterArena& arena;
    BatchLoss loss;
    std::int64_t batch;           ///< images of a micro-batch on this rank
    std::int64_t first_position;  ///< of this rank's slice in the global batch
    std::uint64_t seed;
    std::int64_t micro_batches = 1;
    Ema* ema = nullptr;
    bool fused = true;         ///< operations in bfloat16; else plain ones
    bool half_images = false;  ///< load() rounds images to bfloat16: see takes_half_images()
    /// Room for a micro-batch, and what fills it on the device in every step (null: load() does).
    /// `step` as device_step().
    std::function<Batch()> make_inputs{};
    std::function<void(const Batch& inputs, std::int64_t micro_batch, const std::int64_t* step)>
        fill{};
    Communicator* communicator = nullptr;  ///< of all ranks, on the device; null: one rank
    Wire wire = Wire::Gradients;
    /// Algorithms to start with, and who has the last word on the ones found, before capture (null:
    /// they are kept). Called once, by all ranks.
    kernels::GemmChoices choices{};
    std::function<kernels::GemmChoices(const kernels::GemmChoices& found)> settle{};
  };

  explicit DeviceStep(Parts parts);
  ~DeviceStep();
  DeviceStep(const DeviceStep&) = delete;
  DeviceStep& operator=(const DeviceStep&) = delete;

  /// Steps that may be under way: enqueue() waits for the oldest when there are more.
  static constexpr std::int64_t kSlots = 4;

  /// Copies a micro-batch to where the next step reads it; host or device memory with parts.batch
  /// rows.
  void load(std::int64_t micro_batch, const Batch& batch);
  /// What steps read, on the device: for callers that write their batch there.
  const Batch& inputs(std::int64_t micro_batch = 0) const {
    return micro_batches_[static_cast<std::size_t>(micro_batch)].inputs;
  }
  /// Number of the step, int64 on the device, while it runs.
  const std::int64_t* device_step() const;

  /// Enqueues one step on what was loaded; returns before it has run.
  void enqueue(const DeviceStepNumbers& numbers);
  /// Steps enqueued whose result was not taken.
  std::int64_t outstanding() const { return enqueued_ - taken_; }
  /// Waits for the oldest outstanding step.
  DeviceStepResult take();
  /// Takes all results; the last one.
  DeviceStepResult wait();

  /// With fused operations alone.
  FusedContext& context() { return *context_; }
  const c10::cuda::CUDAStream& stream() const { return stream_; }
  bool captured() const { return graph_.captured(); }

 private:
  struct MicroBatch {
    Batch inputs;
    std::unique_ptr<DeviceJoins> joins;
  };
  /// Pinned memory of one step under way.
  struct Slot {
    at::Tensor numbers, report;
    std::int64_t step = 0;
    std::unique_ptr<at::cuda::CUDAEvent> begun, done;
  };

  int ranks() const;
  void bind_parameters();
  void make_micro_batches();
  Batch room_for_inputs() const;
  void make_slots();
  void write_numbers(Slot& slot, const DeviceStepNumbers& numbers);
  void read_back(Slot& slot);
  void run();
  void run_eagerly();
  void settle_choices();
  /// One more than can be under way: the end of the step before the oldest is kept.
  static constexpr std::int64_t kRing = kSlots + 1;
  Slot& slot_of(std::int64_t number) {
    return slots_[static_cast<std::size_t>((number + 1) % kRing)];
  }

  Parts parts_;
  c10::cuda::CUDAStream stream_;
  std::optional<FusedContext> context_;
  at::Tensor agreed_;  // loss, stop, checkpoint: summed over ranks
  at::Tensor wishes_;
  DeviceUpdate update_;
  std::unique_ptr<GradientReducer> reducer_;
  DeviceNorms norms_;
  std::vector<MicroBatch> micro_batches_;
  std::array<Slot, kRing> slots_;
  std::int64_t enqueued_ = 0, taken_ = 0;
  std::int64_t eager_steps_ = 0;
  bool capturable_ = true;
  std::shared_ptr<void> hold_;  // of the communicator, longer than the graph
  DeviceGraph graph_;
};

}  // namespace ablate
