#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/stage_clock.h"
#include "datasets/transforms.h"
#include "runner/torch/torch.h"

namespace ablate {

/// A rank's share of a run's batches; `datasets` does not know communicators.
struct Shard {
  int rank = 0;
  int size = 1;
};

/// Samples of one forward pass on one rank, normalised, augmented and mixed.
struct Batch {
  at::Tensor images;  ///< (B, 3, H, W) float32
  at::Tensor labels;  ///< (B) int64
  /// (B, H, W) uint8: classes of the pixels, LabelMap::kIgnore for none; undefined where images
  /// have a label as a whole. In evaluation of the original image's size, whatever the network's
  /// input.
  at::Tensor label_maps;
  at::Tensor other_labels;  ///< (B) int64: label of the mixing partner; undefined without mixing
  at::Tensor mix;  ///< (B) float32: weight of `labels` against `other_labels`; undefined likewise
  at::Tensor weights;  ///< (B) float32: 1, or 0 for the padding of an evaluation's last batch
  std::vector<std::int64_t> indices;  ///< sample of each row; -1 for padding
  std::int64_t first_position = 0;    ///< of row 0 in the global batch (training) or in the set
};

struct LoaderOptions {
  std::uint64_t seed = 0;
  std::int64_t global_batch = 0;
  std::int64_t micro_batch = 0;  ///< rows of one Batch; divides global_batch / shard.size
  std::int64_t mix_group = 32;   ///< mixing partners lie within groups of this many rows
  Shard shard{};
  int threads = 1;      ///< decoding and augmenting threads; 0 works in the calling thread
  int prefetch = 3;     ///< batches under way or waiting at most
  bool pinned = false;  ///< images lie in memory that a CUDA device copies from by itself
};

/// How an epoch falls into micro-batches of one rank.
struct BatchPlan {
  std::int64_t rows = 0;      ///< of a micro-batch
  std::int64_t per_step = 0;  ///< micro-batches
  std::int64_t steps = 0;     ///< of an epoch

  /// Throws SpecError with the fix when sizes do not divide (global_batch by shard.size, the rank's
  /// slice by micro_batch, micro_batch by mix_group when mixing), or when the set is smaller than
  /// one global batch.
  BatchPlan(std::int64_t samples, const AugmentRecipe& recipe, const LoaderOptions& options);

  /// Of row 0 of micro-batch `number` in the global batch.
  std::int64_t first_position(int rank, std::int64_t number) const {
    return (rank * per_step + number % per_step) * rows;
  }
};

/// Batches of one rank in training: order, augmentation and mixing are functions of (seed, epoch,
/// step, position in the global batch), so neither rank, thread nor resume changes a pixel.
/// Rank r takes the r-th contiguous slice of each global batch, cut into micro-batches; the
/// incomplete last global batch of an epoch is dropped.
class TrainLoader {
 public:
  /// Throws what BatchPlan throws.
  TrainLoader(std::shared_ptr<const Dataset> dataset, const AugmentRecipe& recipe,
              LoaderOptions options);
  ~TrainLoader();

  std::int64_t steps_per_epoch() const;
  std::int64_t micro_batches_per_step() const;

  /// The next batch asked for will be micro-batch 0 of `step_in_epoch` of `epoch`; O(1).
  void seek(std::int64_t epoch, std::int64_t step_in_epoch);
  /// The next micro-batch; runs on into the next epoch by itself. Throws what a worker threw.
  Batch next();

  /// Seconds next() has waited for workers since the last call: "input-bound" is said from it.
  double take_wait_seconds();
  /// What its threads have spent since the last call.
  StageSeconds take_stage_seconds();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Rows of one batch of evaluation on one rank. Throws SpecError when ranks do not divide it.
std::int64_t eval_rows(const LoaderOptions& options);

/// All samples of a set in order, once: rank r takes the r-th slice of each batch; the last batch
/// is padded with rows of weight 0, so sums over ranks are exact for any rank count.
class EvalLoader {
 public:
  EvalLoader(std::shared_ptr<const Dataset> dataset, const AugmentRecipe& recipe,
             LoaderOptions options);
  ~EvalLoader();

  /// Starts a new pass over the first `limit` samples (all when 0).
  void start(std::int64_t limit = 0);
  /// Batches of the pass, equal on all ranks.
  std::int64_t batches() const;
  Batch next();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ablate
