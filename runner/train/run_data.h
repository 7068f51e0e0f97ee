#pragma once

#include <memory>

#include <nlohmann/json_fwd.hpp>

#include "datasets/device/crop_loader.h"
#include "datasets/device/resident_loader.h"
#include "datasets/loader.h"
#include "methods/method.h"
#include "runner/core/run_spec.h"
#include "runner/train/environment.h"
#include "runner/train/eval_batches.h"
#include "runner/train/training_options.h"

namespace ablate {

/// The data of one run as one rank sees it.
class RunData {
 public:
  /// Opens the data set. Throws SpecError when it is missing or sizes do not divide.
  RunData(const RunSpec& spec, const TrainingOptions& options, const Environment& environment,
          Shard shard);

  const DatasetSplits& splits() const { return splits_; }
  std::int64_t classes() const { return splits_.train->facts().classes; }
  /// At least 1, also for runs that only evaluate.
  std::int64_t steps_per_epoch() const;

  /// Images of one forward pass on this rank.
  std::int64_t micro_batch() const;

  /// `pinned` as LoaderOptions has it.
  std::unique_ptr<TrainLoader> train_loader(bool pinned = false) const;
  std::unique_ptr<EvalLoader> eval_loader(std::shared_ptr<const Dataset> split) const;
  /// One pass over a split in evaluation: made on the device from a copy of the set where that can
  /// lie in its memory, else from crops of the host; on the host where that is the device, and
  /// where pixels have labels.
  std::unique_ptr<EvalBatches> eval_batches(std::shared_ptr<const Dataset> split,
                                            at::Device device) const;

  /// Why training batches cannot be made on a device; empty when they can.
  std::string why_not_resident() const;
  /// Training batches made on `device` from a copy of the set that the runs of a process share.
  std::unique_ptr<ResidentLoader> resident_loader(at::Device device) const;

  /// Why crops cannot be augmented on a device; empty when they can.
  std::string why_not_cropped() const;
  /// Training batches whose crops are augmented on a device.
  std::unique_ptr<CropLoader> crop_loader(bool pinned) const;

  /// This rank's share of the first `samples` samples of a split, without augmentation.
  void visit(DecisionSplit split, std::int64_t samples, at::ScalarType dtype, at::Device device,
             const TrainContext::LabelledVisitor& visitor) const;

  /// Columns n and fingerprint of the record of an attempt, of the training part.
  nlohmann::json facts() const;

 private:
  DatasetSplits splits_;
  AugmentRecipe recipe_;
  LoaderOptions loader_options_;
};

}  // namespace ablate
