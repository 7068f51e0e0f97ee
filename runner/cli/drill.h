#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runner/cli/drill_case.h"
#include "runner/cli/drill_slurm.h"

namespace ablate {

struct DrillOptions {
  std::string executor = "local";  ///< or "slurm"
  std::vector<std::string> only;   ///< names of cases; empty: all that the executor has
  std::vector<std::string> settings;
  double patience = 600;  ///< seconds for a case
  bool keep = false;      ///< folders of cases that ended as promised, too
};

/// One line of the report.
struct DrillResult {
  std::string name, what;
  DrillVerdict verdict;
  double seconds = 0;
  std::filesystem::path folder;
};

/// Tries the cases one after the other, each in a sweep of its own in a new folder below the output
/// folder, and before them the undisturbed sweep that the others are compared with.
class Drill {
 public:
  struct Callbacks {
    std::function<void(std::string_view name, std::string_view what)> begin;
    std::function<void(const DrillResult& result)> end;
  };

  /// Throws SpecError for a case that the executor does not have.
  Drill(const DrillOptions& options, const Workspace& workspace, Callbacks callbacks);

  /// Ends early when the undisturbed sweep fails, or on request.
  void run(StopSignal& stop);

  std::size_t planned() const { return cases_.size() + 1; }
  const std::vector<DrillResult>& results() const { return results_; }
  std::size_t passed() const;

 private:
  DrillVerdict calm(DrillSweep& sweep, StopSignal& stop);
  DrillVerdict strike(const DrillCase& drill, DrillSweep& sweep, StopSignal& stop);
  bool act(const DrillCase& drill, DrillSweep& sweep, const ControllerLoss* loss,
           StopSignal& stop) const;
  void try_out(std::string_view name, std::string_view what,
               const std::function<DrillVerdict(DrillSweep&)>& body, std::string_view fix,
               const StopSignal& stop);
  DrillFault fault_of(const DrillCase& drill) const;
  bool from_outside(const DrillCase& drill) const;
  bool on_slurm() const { return options_.executor == "slurm"; }

  const DrillOptions options_;
  const Workspace workspace_;
  const Callbacks callbacks_;
  std::vector<const DrillCase*> cases_;
  std::vector<std::string> settings_;
  std::filesystem::path folder_;
  Launch launch_;
  DrillRecord undisturbed_;
  std::vector<DrillResult> results_;
};

}  // namespace ablate
