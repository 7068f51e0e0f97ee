#pragma once

#include <memory>
#include <string>
#include <vector>

#include "results/status.h"
#include "results/store.h"
#include "sweeps/workspace.h"

namespace ablate {

/// The database of the workspace. Throws SpecError, with the way out, when there is none.
std::unique_ptr<ResultStore> open_store(const Workspace& workspace, ResultStore::Mode mode);

/// The run that `text` names: the beginning of an id, or "LABEL seed N" of any sweep. Throws
/// SpecError with the nearest label.
std::string find_run(ResultStore& store, const std::string& text);

/// Eight digits name a run in practice; find_run() takes any number.
std::string short_id(const std::string& run_uid);

/// "2026-01-31 14:05" in local time; "" for nothing.
std::string clock_text(std::optional<std::int64_t> microseconds);

}  // namespace ablate
