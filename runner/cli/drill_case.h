#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runner/cli/drill_sweep.h"

namespace ablate {

/// Who is struck in a drill.
enum class DrillTarget {
  FirstRank,
  LastRank,
  Ablate,      ///< the program that runs the sweep
  Controller,  ///< of Slurm, as far as that program can see
};

/// A fault, and what is promised about it.
struct DrillCase {
  std::string_view name;
  std::string_view what;
  DrillTarget target = DrillTarget::LastRank;
  DrillKind fault = DrillKind::Kill;
  /// What the struck attempt is to count as, and why; empty: it is to go on.
  std::string_view outcome;
  std::vector<std::string_view> causes;
  std::string_view fix;  ///< when it does not end as promised
  bool slurm_only = false;
  std::string_view says{};  ///< what the sweep has to say while it happens
};

/// All cases, in the order in which they are tried.
const std::vector<DrillCase>& drill_cases();

/// How a case ended.
struct DrillVerdict {
  bool passed = false;
  std::string found;
  std::string fix;  ///< the setting to change
};

/// Compares what became of a struck sweep with the undisturbed one and with what is promised.
/// `struck` is the run that was hit, `launch` how both were started.
DrillVerdict judge_drill(const DrillCase& drill, const DrillRecord& undisturbed,
                         const DrillRecord& record, const std::string& struck,
                         const Launch& launch);

}  // namespace ablate
