#pragma once

#include <string>
#include <vector>

#include "runner/train/spec_resolver.h"

namespace CLI {
class App;
}

namespace ablate {

/// Adds `--data NAME=DIR`, repeatable.
void add_data_option(CLI::App& app, std::vector<std::string>& data);

/// NAME=DIR pairs as a map. Throws SpecError on anything else.
DataRoots parse_data_roots(const std::vector<std::string>& data);

}  // namespace ablate
