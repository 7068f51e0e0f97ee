#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "datasets/device/crop_batch.h"
#include "datasets/drawn_batch.h"
#include "datasets/sample_reader.h"
#include "datasets/tensor_pool.h"

namespace ablate {

/// The rows of a micro-batch, decoded and cut on the host; the rest is left to
/// augment::make_batch().
struct CroppedBatch {
  at::Tensor pixels;  ///< uint8: room.pixels bytes, perhaps more
  at::Tensor crops;   ///< uint8: augment::CropRow for every row, then the run's step as int64
  augment::CropRoom room;
  std::int64_t samples = 0;           ///< rows that show one; those behind are padding
  std::vector<std::int64_t> indices;  ///< sample of each row; -1 for padding
  std::int64_t first_position = 0;

  static constexpr std::int64_t crop_bytes(std::int64_t rows) {
    return rows * std::int64_t{sizeof(augment::CropRow)} + std::int64_t{sizeof(std::int64_t)};
  }
};

/// Crops batch by batch, and what their finishing has in common; for one thread.
class CropSource {
 public:
  virtual ~CropSource() = default;
  /// All but the place and the targets.
  virtual const augment::TrainBatch& common() const = 0;
  virtual CroppedBatch next() = 0;
};

/// Decodes crops of a set into batches of so many rows, for several threads at once. Memory of
/// batches that nobody holds any more is used again.
class CropPacker {
 public:
  using PlanCrop = std::function<CropPlan(Size image, const AugmentKey& key)>;

  /// `pinned`: batches lie in memory that a CUDA device copies from by itself.
  CropPacker(std::shared_ptr<const Dataset> dataset, std::int64_t rows, bool pinned)
      : dataset_(std::move(dataset)), rows_(rows), memory_(pinned) {}

  /// A batch of what was drawn; padding where that is fewer rows.
  CroppedBatch pack(const DrawnBatch& drawn, const PlanCrop& plan);

  StageSeconds take_stage_seconds() { return clock_.take(); }

 private:
  void make_room(CroppedBatch& batch, std::int64_t filled);

  std::shared_ptr<const Dataset> dataset_;
  std::int64_t rows_;
  SampleReaders readers_;
  StageClock clock_;
  TensorPool memory_;
  std::atomic<std::int64_t> most_bytes_{0};  // that a batch has taken so far
};

}  // namespace ablate
