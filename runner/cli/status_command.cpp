#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "runner/cli/command.h"
#include "runner/cli/status_view.h"
#include "runner/cli/store_access.h"
#include "runner/cli/watch.h"
#include "runner/core/error.h"

namespace ablate::cli::status_command {
namespace {

struct Options {
  std::string sweep;
  bool watch = false, json = false;
};

std::vector<SweepLine> chosen_sweeps(ResultStore& store, const std::string& name) {
  if (name.empty()) return list_sweeps(store);
  return {find_sweep(store, name)};
}

std::string text_of(const Options& options, const Workspace& workspace) {
  const auto store = open_store(workspace, ResultStore::Mode::ReadOnly);
  const std::vector<SweepLine> sweeps = chosen_sweeps(*store, options.sweep);
  if (options.json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const SweepLine& sweep : sweeps) list.push_back(status_json(*store, sweep, workspace));
    return list.dump(2) + "\n";
  }
  std::string text;
  for (const SweepLine& sweep : sweeps) text += status_text(*store, sweep, workspace);
  return text.empty() ? cat("no sweep in ", workspace.database.string(), " yet\n") : text;
}

int run(const Options& options, const GlobalOptions& globals) {
  const Workspace workspace = globals.workspace();
  if (!options.watch) {
    std::cout << text_of(options, workspace);
    return 0;
  }
  ChangingText view(globals.style(1));
  watch([&] {
    view.show(text_of(options, workspace));
    return true;
  });
  return 0;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  app.add_option("sweep", options->sweep, "Name of a sweep (default: all)")->type_name("SWEEP");
  auto* json = app.add_flag("--json", options->json, "For programs: every run with all fields");
  app.add_flag("--watch", options->watch, "Show it again as it changes, until Ctrl-C")
      ->excludes(json);
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "status",
    .position = 3,
    .summary = "What runs, what waits, what failed and why",
    .examples = "  ablate status\n"
                "  ablate status demo --watch\n"
                "  ablate status --json | jq '.[].runs[] | select(.state == \"failed\")'\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::status_command
