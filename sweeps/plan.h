#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "results/store.h"
#include "sweeps/expand.h"
#include "sweeps/progress.h"
#include "sweeps/resolver.h"
#include "sweeps/sweep_spec.h"
#include "sweeps/workspace.h"

namespace ablate {

/// What an estimate of time rests on, best first.
enum class EstimateSource {
  SameConfiguration,  ///< finished runs of the row, other seeds
  OtherRows,          ///< finished runs of the sweep, scaled by multiply-accumulates
  Guess,              ///< an assumed speed of this machine
};

/// One run of the plan, in the order of the drafts.
struct PlannedRun {
  std::string state;   ///< as in the database; "new" when it is not there yet, "blocked" when a
                       ///< parent ended without a result
  double seconds = 0;  ///< estimate of a whole run
  EstimateSource source = EstimateSource::Guess;

  /// Whether the sweep would work on it.
  bool to_do() const;
  /// Whether it has no result and is not tried again by itself.
  bool ended() const;
};

/// What a sweep is about to do, and what that costs.
struct Plan {
  std::vector<PlannedRun> runs;
  std::size_t done = 0, to_do = 0, ended = 0;  ///< ended: failed, diverged or skipped
  double work_s = 0;                           ///< sum over runs to do
  double wall_s = 0;                           ///< with the concurrency of `[launch]`
  EstimateSource worst = EstimateSource::SameConfiguration;
  double final_bytes = 0;       ///< weights that stay
  double checkpoint_bytes = 0;  ///< at most at one time, gone at the end
  std::uint64_t free_bytes = 0;
};

/// `store` is nullptr when there is no database yet.
Plan make_plan(const Launch& launch, const std::vector<Draft>& drafts,
               const std::vector<ResolvedRun>& runs, ResultStore* store,
               const Workspace& workspace);

/// The plan as text: one line a row of the table, then time, disk and what deserves a warning.
void print_plan(std::ostream& out, const TerminalStyle& style, const SweepSpec& sweep,
                const std::vector<Draft>& drafts, const std::vector<ResolvedRun>& runs,
                const Plan& plan, const Workspace& workspace);

}  // namespace ablate
