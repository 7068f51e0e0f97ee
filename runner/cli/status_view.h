#pragma once

#include <chrono>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "results/status.h"
#include "results/store.h"
#include "sweeps/progress.h"
#include "sweeps/workspace.h"

namespace ablate {

/// A sweep as `ablate status` prints it: a line of counts, then one a run. Live runs are read from
/// their spools, for the database may lag behind.
std::string status_text(ResultStore& store, const SweepLine& sweep, const Workspace& workspace);
/// The same for programs.
nlohmann::ordered_json status_json(ResultStore& store, const SweepLine& sweep,
                                   const Workspace& workspace);

/// "3 done, 2 planned".
std::string counts_text(const SweepLine& sweep);

/// Shows texts that change: in place on a terminal; elsewhere the lines that are new, every half
/// minute.
class ChangingText {
 public:
  explicit ChangingText(TerminalStyle style) : style_(style) {}

  /// `last`: now, however short ago the one before was.
  void show(const std::string& text, bool last = false);

 private:
  void show_in_place(const std::string& text);
  void show_new_lines(const std::string& text);

  TerminalStyle style_;
  std::set<std::string> shown_;
  std::chrono::steady_clock::time_point next_;
};

/// Follows a sweep that another `ablate` works on, until nobody works on it any more. Returns
/// whether it came to that: false when the user stopped following. Throws SpecError when the
/// database does not know the sweep.
bool follow_sweep(const std::string& sweep, const Workspace& workspace, TerminalStyle style);

}  // namespace ablate
