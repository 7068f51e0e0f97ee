#pragma once

#include <string>
#include <vector>

#include "runner/worker/run_pack.h"

namespace ablate {

/// The runs of one command line.
struct RunNames {
  std::vector<std::string> words;  ///< spec files, and KEY=VALUE for those that are run files
  bool all = false;                ///< instead: every run below OUT/runs
  std::vector<int> attempts;       ///< none, or one a spec
  std::vector<std::int64_t> fences;
  std::vector<std::string> init_files;
};

/// The runs with their environments: `environment`, and what differs from run to run. Throws
/// SpecError saying what is wrong with the command line or a spec.
std::vector<PackedRun> list_runs(const RunNames& names, const Environment& environment, int ranks);

}  // namespace ablate
