#pragma once

#include <optional>

#include "results/record.h"
#include "runner/core/run_paths.h"

namespace ablate {

/// How the last attempt at a run ended, by the spool of its first rank; nothing when there was no
/// attempt, or the last one recorded no end (it was killed, or it is still at work).
std::optional<Outcome> last_outcome(const RunPaths& paths);

}  // namespace ablate
