#pragma once

#include "runner/cli/command.h"
#include "sweeps/session.h"

namespace ablate {

/// What `sweep` and `run` have in common: schedules the runs of a plan with signals handled, the
/// progress on standard error, and says how it ended there. Returns the exit code.
int launch_runs(ResultStore& store, const ResolvedSweep& sweep, const Plan& plan,
                const ScheduleOptions& options, const Workspace& workspace,
                const GlobalOptions& globals);

}  // namespace ablate
