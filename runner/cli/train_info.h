#pragma once

#include <nlohmann/json.hpp>

#include "sweeps/workspace.h"

namespace ablate {

/// What `ablate-train describe` says: registries and build. Throws Error when it cannot be had.
nlohmann::json describe_train_program(const Workspace& workspace);

}  // namespace ablate
