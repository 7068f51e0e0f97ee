#include "runner/worker/finished_run.h"

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate {

namespace fs = std::filesystem;

FinishedRun FinishedRun::find(const fs::path& folder) {
  const fs::path plain = fs::canonical(folder);
  const bool is_final = fs::exists(plain / "structure.json");
  const fs::path spec = (is_final ? plain.parent_path() : plain) / "spec.json";
  if (!fs::exists(spec)) {
    throw SpecError(cat("no file ", spec.string(),
                        ": expected the folder of a run (out/runs/<id>), which says what data the "
                        "model was made for"));
  }
  return {is_final ? plain : plain / "final",
          RunSpec::from_json(nlohmann::json::parse(read_file(spec)))};
}

TrainingOptions FinishedRun::options(std::int64_t batch, int ranks) const {
  Params params(spec.training, "run");
  TrainingOptions options = TrainingOptions::read(params);
  if (batch > 0) options.global_batch = batch;
  options.global_batch = (options.global_batch + ranks - 1) / ranks * ranks;
  return options;
}

std::shared_ptr<const Dataset> choose_split(const DatasetSplits& splits, const std::string& name) {
  if (name == "train") return splits.train;
  if (name == "test") return splits.test;
  if (!splits.holdout) {
    throw SpecError("--split holdout: the run set nothing aside (dataset.holdout = 0)");
  }
  return splits.holdout;
}

}  // namespace ablate
