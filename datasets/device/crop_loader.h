#pragma once

#include "datasets/device/crop_batch.h"
#include "datasets/loader.h"
#include "datasets/stage_clock.h"

namespace ablate {

/// The rows of a micro-batch of training, decoded and cut on the host; the rest is left to
/// augment::make_batch().
struct CroppedBatch {
  at::Tensor pixels;  ///< uint8: room.pixels bytes, perhaps more
  at::Tensor crops;   ///< uint8: augment::CropRow for every row, then the run's step as int64
  augment::CropRoom room;
  std::vector<std::int64_t> indices;
  std::int64_t first_position = 0;

  static constexpr std::int64_t crop_bytes(std::int64_t rows) {
    return rows * std::int64_t{sizeof(augment::CropRow)} + std::int64_t{sizeof(std::int64_t)};
  }
};

/// TrainLoader's batches up to the point where pixels of crops are known.
class CropLoader {
 public:
  /// Why a recipe's batches cannot be made so; empty when they can.
  static std::string why_not(const AugmentRecipe& recipe);

  /// `pinned`: batches lie in memory that a CUDA device copies from by itself. Throws what
  /// BatchPlan throws.
  CropLoader(std::shared_ptr<const Dataset> dataset, const AugmentRecipe& recipe,
             const LoaderOptions& options, bool pinned);
  ~CropLoader();

  const BatchPlan& plan() const;
  /// What all micro-batches have in common: all but the place and the targets.
  const augment::TrainBatch& common() const;

  /// As those of TrainLoader.
  void seek(std::int64_t epoch, std::int64_t step_in_epoch);
  CroppedBatch next();
  double take_wait_seconds();
  StageSeconds take_stage_seconds();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ablate
