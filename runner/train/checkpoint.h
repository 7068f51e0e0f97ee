#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "methods/models/safetensors.h"
#include "results/record.h"

namespace ablate {

/// A run between two optimizer steps: named tensors (never flat buffers) and the state of methods.
struct Checkpoint {
  std::int64_t step = 0;  ///< optimizer steps done
  nlohmann::json state;
  NamedTensors tensors;
};

/// Resume points of one run in one folder, each a folder of its own that appears by a rename and
/// carries a manifest with the SHA-256 of its files: a reader finds the newest complete one
/// whatever happened while the next was written.
///
///   step-000000120/{tensors.safetensors, state.json, manifest.json}
class CheckpointStore {
 public:
  /// Called right before a rename; throws when this attempt may no longer write.
  using FenceCheck = std::function<void()>;

  CheckpointStore(std::filesystem::path directory, int keep, FenceCheck check_fence);

  /// Writes a checkpoint and removes all but the newest `keep` up to it, and newer ones: they could
  /// not be used, or this attempt would have begun there. Throws Error when the disk is full or the
  /// fence was lost; the earlier checkpoints are then untouched.
  CheckpointNote save(const Checkpoint& checkpoint, const std::string& structure_hash,
                      bool deployable);

  /// Path of the newest checkpoint whose files match its manifest; others are skipped with a
  /// warning. Empty when there is none.
  std::optional<std::filesystem::path> newest_valid() const;

  /// Throws Error when a file cannot be read.
  static Checkpoint load(const std::filesystem::path& checkpoint);

  /// For a finished run. A failure is only logged.
  void remove_all() const;

 private:
  void prune(const std::filesystem::path& newest) const;

  std::filesystem::path directory_;
  int keep_;
  FenceCheck check_fence_;
};

/// Writes a folder so that it appears whole or not at all: `fill` writes files into a temporary
/// sibling that no other process uses, which then replaces `directory`. `before_rename` may throw
/// to give up. Siblings that killed processes left are removed.
void write_directory_atomic(const std::filesystem::path& directory,
                            const std::function<void(const std::filesystem::path&)>& fill,
                            const std::function<void()>& before_rename);

}  // namespace ablate
