#pragma once

#include <string>
#include <vector>

#include "results/store.h"
#include "sweeps/expand.h"
#include "sweeps/plan.h"
#include "sweeps/resolver.h"
#include "sweeps/scheduler.h"

namespace ablate {

/// Drafts and what they resolved to, entry by entry.
struct ResolvedSweep {
  std::vector<Draft> drafts;
  std::vector<ResolvedRun> runs;
};

/// Expands and resolves. Throws SpecError with everything that is wrong.
ResolvedSweep resolve_sweep(const SweepSpec& sweep, const Workspace& workspace);

/// The runs as they enter the database.
std::vector<RegisteredRun> registered_runs(const ResolvedSweep& sweep);

/// Reads what the folders of registered runs hold: the database may be younger than they are, lost,
/// moved to another machine, or without the runs that were computed elsewhere. Returns what is
/// wrong with them.
std::vector<std::string> take_up_folders(ResultStore& store, const ResolvedSweep& sweep,
                                         const Workspace& workspace);

/// The runs as the scheduler takes them, with the estimates of the plan.
std::vector<ScheduledRun> scheduled_runs(const ResolvedSweep& sweep, const Plan& plan);

}  // namespace ablate
