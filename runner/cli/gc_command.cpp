#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <set>

#include <CLI/CLI.hpp>

#include "results/ingest.h"
#include "runner/cli/command.h"
#include "runner/cli/store_access.h"
#include "runner/core/run_paths.h"
#include "runner/core/text.h"
#include "sweeps/run_state.h"

namespace ablate::cli::gc_command {
namespace {

namespace fs = std::filesystem;

struct Options {
  bool dry_run = false, weights = false, spools = false;
};

struct Item {
  fs::path path;
  const char* why;
  std::uintmax_t bytes = 0;
};

std::uintmax_t size_of(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return fs::file_size(path, ignored);
  std::uintmax_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path, ignored)) {
    if (entry.is_regular_file(ignored)) bytes += entry.file_size(ignored);
  }
  return bytes;
}

/// Whether a run that is not done begins from this one or learns from it.
bool is_needed(const RunDetail& detail) {
  return std::any_of(detail.children.begin(), detail.children.end(),
                     [](const RunDetail::Relative& child) { return child.state != "done"; });
}

std::vector<Item> collect(ResultStore& store, const Workspace& workspace, const Options& options) {
  std::vector<Item> items;
  const auto offer = [&](const fs::path& path, const char* why) {
    if (fs::exists(path)) items.push_back({path, why, size_of(path)});
  };
  offer(workspace.out / ".cache", "answers that can be asked for again");
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(workspace.out / "runs", ignored)) {
    const std::string id = entry.path().filename();
    if (!store.knows_run(id)) continue;
    const RunDetail detail = describe_run(store, id);
    if (detail.run.state != "done") continue;
    const RunPaths paths(workspace.out, id);
    offer(paths.checkpoints(), "resume checkpoints of a finished run");
    if (options.weights && !is_needed(detail)) {
      offer(paths.final_weights(), "final weights no unfinished run needs");
    }
  }
  if (options.spools) {
    // A copied or merged database also knows spools of other folders, which are not ours to remove.
    const std::string ours = (workspace.out / "").string();
    for (const fs::path& spool : removable_spools(store)) {
      if (!spool.string().starts_with(ours)) continue;
      offer(spool, "spool whose content is in the database");
    }
  }
  return items;
}

int run(const Options& options, const GlobalOptions& globals) {
  const Workspace workspace = globals.workspace();
  const auto store = open_store(workspace, ResultStore::Mode::ReadWrite);
  std::uintmax_t bytes = 0;
  const std::vector<Item> items = collect(*store, workspace, options);
  for (const Item& item : items) {
    std::cout << human_bytes(static_cast<double>(item.bytes)) << "  " << item.path.string() << "  ("
              << item.why << ")\n";
    bytes += item.bytes;
    if (!options.dry_run) fs::remove_all(item.path);
  }
  std::cout << (options.dry_run ? "would free " : "freed ")
            << human_bytes(static_cast<double>(bytes)) << "\n";
  return 0;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  app.add_flag("--dry-run", options->dry_run, "Only say what would go");
  app.add_flag("--weights", options->weights,
               "Also final weights that no unfinished run begins from or learns from");
  app.add_flag("--spools", options->spools, "Also spools of ended runs, after a database check");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "gc",
    .position = 10,
    .summary = "Free storage that nothing needs any more",
    .examples = "  ablate gc --dry-run\n"
                "  ablate gc --spools\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::gc_command
