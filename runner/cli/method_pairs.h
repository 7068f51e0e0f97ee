#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace ablate::cli {

/// Which methods can be combined, as lines of a terminal: a triangle of "+" and numbers, and the
/// reasons that the numbers stand for. `pairs` as `ablate-train describe` gives them: each name
/// with those that come later, and why not ("" when they can).
std::vector<std::string> pair_lines(const nlohmann::json& pairs);

}  // namespace ablate::cli
