#pragma once

#include <memory>

#include <nlohmann/json_fwd.hpp>

#include "datasets/device/resident_loader.h"
#include "datasets/loader.h"
#include "methods/method.h"
#include "runner/core/run_spec.h"
#include "runner/train/environment.h"
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

  std::unique_ptr<TrainLoader> train_loader() const;
  /// The same batches made on the device, where the whole set lies; null when the set or the recipe
  /// does not allow it. Runs of a process share one copy of a set.
  std::unique_ptr<ResidentLoader> resident_loader(at::Device device) const;
  std::unique_ptr<EvalLoader> eval_loader(std::shared_ptr<const Dataset> split) const;

  /// Why training batches cannot be made on a device; empty when they can.
  std::string why_not_resident() const;
  /// Training batches made on `device` from a copy that the runs of `sets` share.
  std::unique_ptr<ResidentLoader> resident_loader(ResidentSets& sets, at::Device device) const;

  /// This rank's share of the first `samples` samples of a split, without augmentation.
  void visit(DecisionSplit split, std::int64_t samples, at::ScalarType dtype, at::Device device,
             const TrainContext::Visitor& visitor) const;

  /// Columns n and fingerprint of the record of an attempt, of the training part.
  nlohmann::json facts() const;

 private:
  DatasetSplits splits_;
  AugmentRecipe recipe_;
  LoaderOptions loader_options_;
};

}  // namespace ablate
