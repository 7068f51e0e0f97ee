#pragma once

#include <memory>
#include <string>

#include "datasets/device/resident_set.h"
#include "datasets/loader.h"

namespace ablate {

/// TrainLoader's batches, made where a resident set lies: by kernels on a CUDA device, without the
/// host's hand in it. Equal to TrainLoader's to the last bits of drawn numbers (one level of 256 in
/// few pixels); on the CPU the same code runs in the calling thread.
class ResidentLoader {
 public:
  /// Why batches of this set and recipe cannot be made on a device; empty when they can.
  static std::string why_not(const Dataset& dataset, const AugmentRecipe& recipe);

  /// Throws what BatchPlan throws.
  ResidentLoader(std::shared_ptr<const ResidentSet> set, const AugmentRecipe& recipe,
                 const LoaderOptions& options);

  std::int64_t steps_per_epoch() const { return plan_.steps; }
  std::int64_t micro_batches_per_step() const { return plan_.per_step; }

  /// Room for one micro-batch on the set's device; weights are 1. Mixing recipes alone have
  /// other_labels and mix; indices stay empty.
  Batch make_buffers() const;

  /// Fills `target` with a micro-batch of the step that `*step` says when the device comes to it,
  /// counted from the beginning of the run; `step` lies in the device's memory. On the current
  /// stream, one at a time, without waiting; can be captured.
  void enqueue(const Batch& target, std::int64_t micro_batch, const std::int64_t* step) const;

 private:
  std::shared_ptr<const ResidentSet> set_;
  BatchPlan plan_;
  int rank_;
  at::Tensor plans_;           // room for the plans of mixing groups
  augment::TrainBatch batch_;  // all but the place and the target
};

/// EvalLoader's batches from a resident set.
class ResidentEvalLoader {
 public:
  static std::string why_not(const Dataset& dataset, const AugmentRecipe& recipe);

  ResidentEvalLoader(std::shared_ptr<const ResidentSet> set, const AugmentRecipe& recipe,
                     const LoaderOptions& options);

  /// A pass over the first `limit` samples (all when 0): what follows is about it.
  void start(std::int64_t limit = 0);
  /// Batches of the pass, equal on all ranks.
  std::int64_t batches() const;

  Batch make_buffers() const;
  /// Fills `target` with batch `number` of the pass, on the current stream, without waiting; sets
  /// its indices and first_position.
  void enqueue(Batch& target, std::int64_t number) const;

 private:
  std::int64_t first_of(std::int64_t number) const;

  std::shared_ptr<const ResidentSet> set_;
  LoaderOptions options_;
  std::int64_t rows_, samples_;
  augment::EvalBatch batch_;
};

}  // namespace ablate
