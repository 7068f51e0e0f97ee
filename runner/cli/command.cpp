#include "runner/cli/command.h"

#include <algorithm>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "runner/core/add_once.h"
#include "runner/core/build_info.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  ablate sweep sweeps/tables/demo.toml --dry-run   what would run, and for how long\n"
    "  ablate sweep sweeps/tables/demo.toml             run it, or continue it, and print its "
    "table\n"
    "  ablate table sweeps/tables/demo.toml --format latex\n"
    "  ablate COMMAND --help                            options and examples of a command\n";

std::vector<const Command*> commands_in_order() {
  std::vector<const Command*> commands;
  for (const std::string& name : Registry<Command>::names()) {
    commands.push_back(&Registry<Command>::get(name));
  }
  std::sort(commands.begin(), commands.end(), [](const Command* left, const Command* right) {
    return std::pair(left->position, left->name) < std::pair(right->position, right->name);
  });
  return commands;
}

void add_global_options(CLI::App& app, GlobalOptions& globals) {
  app.add_option("--out", globals.out, "Output folder: runs, checkpoints, database")
      ->envname("ABLATE_OUT")
      ->capture_default_str();
  app.add_option("--db", globals.database, "Results database (default: results.db in --out)")
      ->envname("ABLATE_DB");
  app.add_option("--data", globals.data,
                 "Where a data set is: NAME=DIR, repeatable (or ABLATE_DATA_<NAME>=DIR)")
      ->type_name("NAME=DIR")
      ->allow_extra_args(false);
  app.add_option("--color", globals.color, "auto, always or never (auto follows NO_COLOR)")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->capture_default_str();
}

std::string examples_text(const Command& command) {
  return command.examples.empty() ? "" : cat("Examples:\n", command.examples);
}

/// The long options of a parser: "--out".
std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

/// What is wrong with a command line, with the nearest known name.
std::string usage_problem(const CLI::App& app, const CLI::App* command,
                          const CLI::ParseError& error) {
  for (const std::string& word : app.remaining(/*recurse=*/true)) {
    if (word.starts_with("-")) {
      std::vector<std::string> known = option_names(app);
      if (command != nullptr) {
        for (const std::string& name : option_names(*command)) add_once(known, name);
      }
      return cat("unknown option ", word, suggestion(word, known));
    }
    if (command != nullptr) return cat("unexpected argument \"", word, "\"");
    return cat("unknown command \"", word, "\"", suggestion(word, Registry<Command>::names()));
  }
  return error.what();
}

int report_usage(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
  const auto chosen = app.get_subcommands();
  const CLI::App* command = chosen.empty() ? nullptr : chosen[0];
  const std::string name = command == nullptr ? "" : " " + command->get_name();
  std::cerr << "ablate" << name << ": " << usage_problem(app, command, error) << "\n"
            << (command == nullptr
                    ? "`ablate --help` lists the commands, `ablate COMMAND --help` their options\n"
                    : cat("`ablate", name, " --help` shows its arguments, options and examples\n"));
  return static_cast<int>(ExitCode::BadSpec);
}

/// `ablate` knows four of the codes; the others concern single runs.
int program_code(ExitCode code) {
  const bool known = code == ExitCode::BadSpec || code == ExitCode::Interrupted;
  return static_cast<int>(known ? code : ExitCode::Failed);
}

}  // namespace

Workspace GlobalOptions::workspace() const {
  Workspace workspace;
  workspace.out = std::filesystem::absolute(out).lexically_normal();
  workspace.database = database.empty() ? workspace.out / "results.db"
                                        : std::filesystem::absolute(database).lexically_normal();
  workspace.data = collect_data(data);
  workspace.train_program = find_train_program();
  return workspace;
}

void add_run_argument(CLI::App& app, std::string& run) {
  app.add_option("run", run, "Beginning of the id, or \"LABEL seed N\"")
      ->required()
      ->type_name("RUN");
}

void add_runs_argument(CLI::App& app, std::vector<std::string>& runs, bool required) {
  app.add_option("runs", runs, "Runs: beginning of the id, or \"LABEL seed N\"")
      ->required(required)
      ->type_name("RUN");
}

void build_parser(CLI::App& app, GlobalOptions& globals, std::function<int()>& action) {
  app.name("ablate");
  app.description("Runs efficiency ablations of vision models and prints tables of them.");
  app.footer(kFooter);
  app.set_version_flag("--version", [] { return build_info().version_line(); });
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  add_global_options(app, globals);
  for (const Command* command : commands_in_order()) {
    CLI::App* sub = app.add_subcommand(std::string(command->name), std::string(command->summary));
    sub->fallthrough();
    sub->footer(examples_text(*command));
    auto run = std::make_shared<std::function<int()>>(command->add(*sub, globals));
    sub->callback([run, &action] { action = *run; });
  }
}

int run_command_line(int argc, const char* const* argv) {
  CLI::App app;
  GlobalOptions globals;
  std::function<int()> action;
  build_parser(app, globals, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return report_usage(app, error);
  }
  try {
    return action();
  } catch (const Error& error) {
    std::cout << std::flush;
    std::cerr << "ablate: " << error.what() << "\n";
    return program_code(error.exit_code());
  } catch (const std::exception& error) {
    std::cout << std::flush;
    std::cerr << "ablate: " << error.what() << "\n";
    return static_cast<int>(ExitCode::Failed);
  }
}

}  // namespace ablate
