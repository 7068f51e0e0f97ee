#pragma once

#include <filesystem>
#include <string>

namespace ablate {

/// Where the files of one run lie under the output folder; both programs follow it.
struct RunPaths {
  std::filesystem::path directory;

  RunPaths(const std::filesystem::path& out, const std::string& run_id)
      : directory(out / "runs" / run_id) {}

  /// Canonical resolved spec.
  std::filesystem::path spec() const { return directory / "spec.json"; }
  /// Its existence asks the ranks to stop soon.
  std::filesystem::path stop_file() const { return directory / "stop"; }
  /// Number of the attempt that may still rename checkpoints into place.
  std::filesystem::path fence() const { return directory / "fence"; }
  /// Of who computes the run, where several processes work through one output folder.
  std::filesystem::path lease() const { return directory / "lease"; }
  std::filesystem::path attempt(int n) const {
    return directory / ("attempt-" + std::to_string(n));
  }
  std::filesystem::path spool(int attempt_n, int rank) const {
    return attempt(attempt_n) / ("rank" + std::to_string(rank) + ".spool");
  }
  std::filesystem::path log(int attempt_n) const { return attempt(attempt_n) / "log.txt"; }
  /// Resume points; gone when the run is done.
  std::filesystem::path checkpoints() const { return directory / "checkpoints"; }
  /// Finalized weights (timm names) and structure of a finished run.
  std::filesystem::path final_directory() const { return directory / "final"; }
  std::filesystem::path final_weights() const { return final_directory() / "model.safetensors"; }
  std::filesystem::path final_structure() const { return final_directory() / "structure.json"; }
};

}  // namespace ablate
