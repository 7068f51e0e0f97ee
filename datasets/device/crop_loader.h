#pragma once

#include <string>

#include "datasets/device/crop_packer.h"

namespace ablate {

/// TrainLoader's batches up to the point where pixels of crops are known.
class CropLoader final : public CropSource {
 public:
  /// Why a recipe's batches cannot be made so; empty when they can.
  static std::string why_not(const AugmentRecipe& recipe);

  /// `pinned`: batches lie in memory that a CUDA device copies from by itself. Throws what
  /// BatchPlan throws.
  CropLoader(std::shared_ptr<const Dataset> dataset, const AugmentRecipe& recipe,
             const LoaderOptions& options, bool pinned);
  ~CropLoader() override;

  const BatchPlan& plan() const;
  const augment::TrainBatch& common() const override;

  /// As those of TrainLoader.
  void seek(std::int64_t epoch, std::int64_t step_in_epoch);
  CroppedBatch next() override;
  double take_wait_seconds();
  StageSeconds take_stage_seconds();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// EvalLoader's batches likewise, of sets whose images have a label as a whole: finished, they are
/// what that loader gives.
class CropEvalLoader final : public CropSource {
 public:
  /// Throws what eval_rows() throws.
  CropEvalLoader(std::shared_ptr<const Dataset> dataset, const AugmentRecipe& recipe,
                 const LoaderOptions& options, bool pinned);
  ~CropEvalLoader() override;

  const augment::TrainBatch& common() const override;

  /// As those of EvalLoader.
  void start(std::int64_t limit = 0);
  std::int64_t batches() const;
  CroppedBatch next() override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ablate
