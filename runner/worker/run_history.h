#pragma once

#include <optional>

#include "results/record.h"
#include "runner/core/file_descriptor.h"
#include "runner/core/run_paths.h"

namespace ablate {

/// How the last attempt at a run ended, by the spool of its first rank; nothing when there was no
/// attempt, or the last one recorded no end (it was killed, or it is still at work).
std::optional<Outcome> last_outcome(const RunPaths& paths);

/// The right to compute a run in an output folder that several processes work through. The system
/// takes it back when the process ends, however that comes about.
class RunLock {
 public:
  /// Nothing when another process has it. Throws Error when the folder cannot be written.
  static std::optional<RunLock> try_take(const RunPaths& paths);

 private:
  explicit RunLock(FileDescriptor file) : file_(std::move(file)) {}
  FileDescriptor file_;
};

}  // namespace ablate
