#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runner/core/registry.h"
#include "sweeps/progress.h"
#include "sweeps/workspace.h"

namespace CLI {
class App;
}

namespace ablate {

/// Options that every command takes.
struct GlobalOptions {
  std::string out = "out";
  std::string database;  ///< empty: results.db in the output folder
  std::vector<std::string> data;
  std::string color = "auto";

  /// Paths made absolute, data folders collected and ablate-train looked for.
  Workspace workspace() const;
  /// How to write to standard output (1) or standard error (2).
  TerminalStyle style(int descriptor) const { return terminal_style(descriptor, color); }
};

/// One command of `ablate`: one file, registered by itself.
struct Command {
  static constexpr std::string_view kind = "command";

  std::string_view name;
  int position = 0;  ///< order in the help
  std::string_view summary;
  std::string_view examples;  ///< shown below the options
  /// Adds the options of the command to its parser; the result runs it and returns the exit code.
  /// `globals` is filled in by then and outlives the parser.
  std::function<int()> (*add)(CLI::App& app, const GlobalOptions& globals) = nullptr;
};

/// The argument RUN of a command, or RUN... where `runs` is a list.
void add_run_argument(CLI::App& app, std::string& run);
void add_runs_argument(CLI::App& app, std::vector<std::string>& runs, bool required);

using CommandRegistration = Registry<Command>::Add;

/// The parser of all commands, for `main` and for shell completion. `action` gets the chosen
/// command's run function when parsing has succeeded.
void build_parser(CLI::App& app, GlobalOptions& globals, std::function<int()>& action);

/// Parses, runs, prints errors to standard error. Returns the exit code of the program.
int run_command_line(int argc, const char* const* argv);

}  // namespace ablate
