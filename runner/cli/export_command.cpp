#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "results/curve.h"
#include "runner/cli/command.h"
#include "runner/cli/store_access.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/run_paths.h"

namespace ablate::cli::export_command {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string run, target;
  bool force = false;
};

void copy(const fs::path& source, const fs::path& target, bool force) {
  if (!fs::exists(source)) {
    throw Error(cat(source.string(), " does not exist: only a finished run has final weights"));
  }
  if (fs::exists(target) && !force) {
    throw SpecError(cat(target.string(), " exists; --force replaces it"));
  }
  std::error_code error;
  fs::copy_file(source, target, fs::copy_options::overwrite_existing, error);
  if (error) throw Error(cat(target.string(), ": ", error.message()));
  std::cout << target.string() << "\n";
}

int run(const Options& options, const GlobalOptions& globals) {
  const Workspace workspace = globals.workspace();
  const auto store = open_store(workspace, ResultStore::Mode::ReadOnly);
  const std::string id = find_run(*store, options.run);
  const RunPaths paths(workspace.out, id);
  const fs::path target =
      options.target.empty() ? fs::path("run-" + short_id(id)) : fs::path(options.target);
  make_directories(fs::absolute(target));
  copy(paths.final_weights(), target / "model.safetensors", options.force);
  copy(paths.final_structure(), target / "structure.json", options.force);
  copy(paths.spec(), target / "spec.json", options.force);
  std::ofstream curves(target / "curves.csv");
  export_csv(*store, id, {}, curves);
  if (!curves.flush()) throw Error(cat((target / "curves.csv").string(), ": cannot be written"));
  std::cout << (target / "curves.csv").string() << "\n";
  return 0;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  add_run_argument(app, options->run);
  app.add_option("--to", options->target, "Folder to write to (default: run-<id>)")
      ->type_name("DIR");
  app.add_flag("--force", options->force, "Replace files that exist");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "export",
    .position = 7,
    .summary = "A run's finalized weights (safetensors, timm names), structure and curves",
    .examples = "  ablate export 3f2a --to exported\n"
                "Writes model.safetensors, structure.json (the edits), spec.json, curves.csv.\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::export_command
