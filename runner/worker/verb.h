#pragma once

#include <functional>
#include <string_view>

#include "runner/core/registry.h"

namespace CLI {
class App;
}

namespace ablate {

/// One verb of `ablate-train`: one file, registered by itself.
struct Verb {
  static constexpr std::string_view kind = "verb";

  std::string_view name;
  std::string_view summary;
  std::string_view examples;  ///< shown below the options
  /// Adds the verb's options to its parser; the result runs it and returns the exit status.
  std::function<int()> (*add)(CLI::App& app);
};

/// Parses, runs, prints errors to standard error. Returns the exit status of the program.
int run_verb_line(int argc, const char* const* argv);

}  // namespace ablate
