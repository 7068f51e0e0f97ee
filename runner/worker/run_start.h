#pragma once

#include "runner/core/run_spec.h"
#include "runner/core/stop.h"
#include "runner/train/environment.h"

namespace ablate {

class Communicator;

/// Attempt and fence of a run that nobody scheduled, where they are 0: the next free attempt, which
/// fences off all earlier ones. Writes the spec into the run's folder when it is not there.
void claim_attempt(const RunSpec& spec, Environment& environment, Communicator& world);

/// When a run stops before its end: its stop file or the one named on the command line, the
/// deadline counted from now.
StopOptions stop_options(const std::filesystem::path& stop_file, double deadline_seconds);

}  // namespace ablate
