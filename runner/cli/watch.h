#pragma once

#include <functional>

namespace ablate {

/// Calls `look` now and then every two seconds, until it says that there is nothing more to see
/// (returns false) or a stop is requested. Returns whether `look` ended it.
bool watch(const std::function<bool()>& look);

}  // namespace ablate
