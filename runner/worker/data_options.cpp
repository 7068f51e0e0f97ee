#include "runner/worker/data_options.h"

#include <CLI/CLI.hpp>

#include "runner/core/error.h"

namespace ablate {

void add_data_option(CLI::App& app, std::vector<std::string>& data) {
  app.add_option("--data", data, "Where a data set is: NAME=DIR, repeatable")
      ->type_name("NAME=DIR")
      ->allow_extra_args(false);
}

DataRoots parse_data_roots(const std::vector<std::string>& data) {
  DataRoots roots;
  for (const std::string& pair : data) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == pair.size()) {
      throw SpecError(cat("--data ", pair, ": expected NAME=DIR"));
    }
    roots[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  return roots;
}

}  // namespace ablate
