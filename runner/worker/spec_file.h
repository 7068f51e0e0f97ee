#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runner/core/run_spec.h"
#include "runner/train/environment.h"

namespace ablate {

/// A resolved spec (.json), or a run file (.toml) with `key=value` overrides, which is resolved
/// first; `environment` gives the data and receives the start weights' file. Throws SpecError.
RunSpec load_spec(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                  Environment& environment, int ranks);

}  // namespace ablate
