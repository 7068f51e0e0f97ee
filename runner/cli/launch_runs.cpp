#include "runner/cli/launch_runs.h"

#include <iostream>

#include "results/ingest.h"
#include "runner/core/error.h"
#include "runner/core/stop.h"
#include "sweeps/executor.h"

namespace ablate {

int launch_runs(ResultStore& store, const ResolvedSweep& sweep, const Plan& plan,
                const ScheduleOptions& options, const Workspace& workspace,
                const GlobalOptions& globals) {
  const StopHandlers handlers(StopHandlers::SecondInterrupt::Count);
  StopSignal stop;
  Ingester ingester(store);
  const auto executor = make_executor(options.launch, workspace);
  ProgressView view(std::cerr, globals.style(2));
  const ScheduleSummary summary = run_schedule(
      store, *executor, workspace, scheduled_runs(sweep, plan), options, ingester, view, stop);
  for (const std::string& problem : summary.problems) {
    std::cerr << styled(globals.style(2), "31", "no result: ") << problem << "\n";
  }
  if (summary.interrupted) {
    std::cerr << "interrupted with " << summary.done << " of " << sweep.runs.size()
              << " runs done; the same command continues\n";
    return static_cast<int>(ExitCode::Interrupted);
  }
  return static_cast<int>(summary.problems.empty() ? ExitCode::Done : ExitCode::Failed);
}

}  // namespace ablate
