#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "results/status.h"
#include "runner/core/drill_fault.h"
#include "runner/core/process.h"
#include "runner/core/stop.h"
#include "sweeps/launch.h"
#include "sweeps/workspace.h"

namespace ablate {

/// A run of a drill's sweep, as it ended.
struct DrillRun {
  std::string id, name, state;
  std::vector<AttemptInfo> attempts;  ///< by number
  std::string numbers;                ///< all that another computation has to repeat, with all bits
  std::string weights;                ///< SHA-256 of the final weights; empty without any
};

/// What became of a drill's sweep.
struct DrillRecord {
  bool timed_out = false;
  int exit_code = 0;   ///< of the last `ablate sweep`
  std::string errors;  ///< what it wrote to standard error
  std::vector<DrillRun> runs;

  const DrillRun* find(const std::string& id) const;
  /// The last line of the errors.
  std::string last_words() const;
};

/// The sweep of all drills: one small model, two seeds, a second or two each.
class DrillSweep {
 public:
  static constexpr std::int64_t kFaultStep = 22;  // of 32; checkpoints come every fourth

  /// `folder` is made; `settings` are those of `ablate sweep`, behind the drill's own.
  DrillSweep(std::filesystem::path folder, const Workspace& workspace,
             std::vector<std::string> settings);

  /// How its runs are started. Throws SpecError for a wrong setting.
  Launch launch() const;
  void plan(const DrillFault& fault) const { write_drill_fault(drill_file(out()), fault); }
  /// Environment of the next start.
  void set_variable(const std::string& name, const std::string& value);

  /// Starts `ablate sweep` on it.
  void start();
  /// SIGKILL to that `ablate`, and to nothing that it started.
  void kill();
  /// Whether it ended within `seconds`; false also when a stop was asked for.
  bool wait(double seconds, StopSignal& stop);
  /// Whether a run has made `steps` within `seconds`; false also when the sweep has ended.
  bool wait_for_steps(const std::string& run, std::int64_t steps, double seconds, StopSignal& stop);
  /// Ends it in order, or at once when that takes long.
  void end();

  /// How it ended. Throws Error when its database cannot be read.
  DrillRecord record() const;
  std::filesystem::path out() const { return folder_ / "out"; }

 private:
  std::filesystem::path folder_;
  std::filesystem::path train_program_;
  std::vector<std::string> settings_;
  std::vector<std::pair<std::string, std::string>> variables_;
  std::unique_ptr<ChildProcess> child_;
  std::optional<ExitStatus> status_;
};

}  // namespace ablate
