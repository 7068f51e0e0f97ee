#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/end_to_end/blows.h"
#include "tests/end_to_end/process_table.h"
#include "tests/end_to_end/workbench.h"

namespace ablate::test {

/// A sweep that is struck at random moments, and as runs finish, and started again until it is
/// complete.
class StruckSweep {
 public:
  /// `arguments` of `ablate`; waits up to `longest_wait` seconds before most blows.
  StruckSweep(const Workbench& bench, std::vector<std::string> arguments, double longest_wait,
              Blows& blows)
      : bench_(bench),
        arguments_(std::move(arguments)),
        longest_wait_(longest_wait),
        blows_(blows) {}

  /// True when a start exited 0 at last; false after one with an unknown exit status, or after very
  /// many starts.
  bool run();

  int starts() const { return starts_; }

 private:
  ExitStatus follow(ChildProcess& ablate);
  std::optional<ExitStatus> lie_in_wait(ChildProcess& ablate);
  bool somebody_finishes() const;
  std::vector<ProcessEntry> choose_job();
  std::optional<std::string> stage(const std::vector<ProcessEntry>& job) const;
  void strike(ChildProcess& ablate);

  const Workbench& bench_;
  std::vector<std::string> arguments_;
  double longest_wait_;
  Blows& blows_;
  int starts_ = 0;
};

}  // namespace ablate::test
