#pragma once

#include <cstddef>
#include <vector>

#include "runner/core/run_spec.h"
#include "runner/core/stop.h"
#include "runner/train/environment.h"

namespace ablate {

/// One of several runs of a process. Attempt and fence may be 0: claimed when it starts.
struct PackedRun {
  RunSpec spec;
  Environment environment;
};

struct PackOptions {
  std::size_t at_a_time = 0;  ///< runs computed at once; 0: all of them
  /// Other processes may take runs of the same output folder: a run that one of them computes is
  /// left to it, one that is done or diverged is not started again.
  bool shared = false;
  StopOptions stop{};  ///< of the whole process; a run has its own stop file beside it
};

/// Computes runs as threads of this process, each with its own communicator, spool and attempt, and
/// the bits it would have alone. A run begins when its parents in the list are done; one whose
/// parent has no result is not started. A run that fails or diverges ends alone; a stop request
/// ends all with checkpoints; once the device is lost no further run begins.
///
/// Returns the worst of the runs' exit statuses. The spools are the truth: also a run that fails
/// before it could open its own leaves one that says why.
int run_pack(std::vector<PackedRun> runs, const PackOptions& options);

}  // namespace ablate
