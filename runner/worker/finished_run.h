#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "datasets/dataset.h"
#include "runner/core/run_spec.h"
#include "runner/train/training_options.h"

namespace ablate {

/// A run that verbs look at after it has finished: out/runs/<id>, or its folder final.
struct FinishedRun {
  std::filesystem::path finals;
  RunSpec spec;

  /// Throws SpecError when the folder is not that of a run.
  static FinishedRun find(const std::filesystem::path& folder);
  /// Its training options with `batch` images a pass (0: as in training) on so many ranks: any
  /// batch gives the same sums, and one that divides among the ranks is needed.
  TrainingOptions options(std::int64_t batch, int ranks) const;
};

/// "test", "holdout" or "train". Throws SpecError when the run set nothing aside.
std::shared_ptr<const Dataset> choose_split(const DatasetSplits& splits, const std::string& name);

}  // namespace ablate
