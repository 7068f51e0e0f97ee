#include <filesystem>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "results/status.h"
#include "results/text_grid.h"
#include "runner/cli/command.h"
#include "runner/cli/launch_runs.h"
#include "runner/cli/store_access.h"
#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate::cli::run_command {
namespace {

struct Options {
  std::string file;
  std::vector<std::string> overrides;
  bool dry_run = false;
};

/// A run file is a run table, with a [launch] table beside it if the user likes.
struct SingleRun {
  Draft draft;
  Launch launch;
};

SingleRun parse(const Options& options) {
  if (!std::filesystem::is_regular_file(options.file)) {
    throw SpecError(cat(options.file, ": no such file; a run file (TOML) is expected"));
  }
  Value root = read_toml(options.file);
  for (const std::string& text : options.overrides) {
    auto [path, value] = parse_override(text);
    root.set_path(path, std::move(value));
  }
  SingleRun single;
  if (const Value* launch = root.find("launch")) single.launch = parse_launch(*launch);
  root.as_table().erase("launch");
  if (root.find("variant") != nullptr) {
    throw SpecError(cat(options.file, ": this is a sweep file: `ablate sweep ", options.file, "`"));
  }
  root.as_table().try_emplace("seed", Value(0));
  single.draft.label = std::filesystem::path(options.file).stem();
  single.draft.variant = single.draft.label;
  single.draft.seed = static_cast<std::uint64_t>(root.find("seed")->as_int());
  single.draft.spec = std::move(root);
  return single;
}

void print_result(ResultStore& store, const std::string& id) {
  const RunDetail detail = describe_run(store, id);
  std::vector<std::vector<std::string>> rows;
  for (const FinalInfo& info : detail.finals) {
    rows.push_back({info.metric, info.value ? cat(*info.value) : "none", info.unit});
  }
  for (const std::string& line : grid_lines(rows, {Align::Left, Align::Right})) {
    std::cout << line << "\n";
  }
  std::cout << "`ablate show " << short_id(id) << "` tells more\n";
}

int run(const Options& options, const GlobalOptions& globals) {
  const SingleRun single = parse(options);
  const Workspace workspace = globals.workspace();
  if (!options.dry_run) make_directories(workspace.out);
  ResolvedSweep resolved;
  resolved.drafts = {single.draft};
  resolved.runs = resolve_drafts(resolved.drafts, single.launch.ranks, workspace);
  if (options.dry_run) {
    std::cout << resolved.runs[0].spec.dump(2) << "\n";
    return 0;
  }
  ResultStore store(workspace.database);
  store.register_runs(registered_runs(resolved));
  const Plan plan = make_plan(single.launch, resolved.drafts, resolved.runs, &store, workspace);
  int code = 0;
  if (plan.done == 0) {
    code = launch_runs(store, resolved, plan, {single.launch}, workspace, globals);
  }
  if (code == 0) print_result(store, resolved.runs[0].id);
  return code;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  app.add_option("file", options->file, "Run file: a run table, and a [launch] table if you like")
      ->required()
      ->type_name("FILE");
  app.add_option("settings", options->overrides, "Overrides: epochs=1, launch.ranks=2")
      ->type_name("KEY=VALUE");
  app.add_flag("--dry-run", options->dry_run, "Print the resolved spec and stop");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "run",
    .position = 2,
    .summary = "One run, outside any sweep",
    .examples = "  ablate run vit.toml seed=3 optimizer.lr=5e-4 launch.ranks=2\n"
                "  ablate run vit.toml --dry-run       every setting, defaults included\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::run_command
