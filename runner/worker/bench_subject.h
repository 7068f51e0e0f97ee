#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "distributed/communicator.h"
#include "distributed/gradient_reducer.h"
#include "methods/models/model.h"
#include "runner/measure/protocol.h"
#include "runner/train/finals.h"
#include "runner/train/optimizer.h"
#include "runner/train/task.h"

namespace ablate {

// What every subject of a protocol is measured on.

inline constexpr double kBenchLr = 1e-4;
/// Textured images of the model's size in main memory, labels in turn, of dense models those of
/// pixels.
Batch synthetic_batch(const Model& model, const Structure& structure, std::int64_t size,
                      at::ScalarType dtype);
/// Classification with label smoothing 0.1; segmentation with its defaults for dense models.
std::unique_ptr<Task> bench_task(const Structure& structure);
/// AdamW with its defaults.
std::unique_ptr<Optimizer> bench_optimizer();

/// A structure under a protocol, on synthetic images: what one timed repetition does.
class BenchSubject {
 public:
  /// Training with a communicator averages gradients over its ranks.
  BenchSubject(const Structure& structure, const Protocol& protocol,
               Communicator* communicator = nullptr);
  ~BenchSubject();

  /// Inference: one forward pass. Training: what the trainer does between two batches: gradients
  /// to zero, forward, loss, backward, gradient norm, update.
  void repeat();
  /// Repetitions are on these images from now on, instead of synthetic ones.
  void take(Batch batch) { batch_ = std::move(batch); }

  Model& model() { return *model_; }

 private:
  /// Parts that only training needs.
  struct Training;
  void train_step();

  std::shared_ptr<Model> model_;
  Batch batch_;
  std::unique_ptr<Training> training_;
  std::int64_t step_ = 0;
};

/// Peak bytes of tensors during a repetition, the model and its training state included.
std::int64_t peak_bytes(const Structure& structure, const Protocol& protocol);

/// The largest batch (of at most 65,536 images) whose peak stays within `budget` bytes: "working
/// load" of Lin et al., CVPR 2024. 0 when one image does not.
std::int64_t max_batch(const Structure& structure, Protocol protocol, std::int64_t budget);

}  // namespace ablate
