#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "results/text_grid.h"
#include "runner/cli/command.h"
#include "runner/cli/print_table.h"
#include "runner/cli/status_view.h"
#include "runner/cli/store_access.h"
#include "runner/cli/train_info.h"
#include "runner/core/error.h"

namespace ablate::cli::list_command {
namespace {

using nlohmann::json;
using Grid = std::vector<std::vector<std::string>>;

struct Options {
  std::string kind, name;
};

void print(const Grid& grid, const char* indent = "") {
  for (const std::string& line : grid_lines(grid, {})) std::cout << indent << line << "\n";
}

/// Registries: the lists of the description whose elements have names.
std::vector<std::string> kinds_of(const json& description) {
  std::vector<std::string> kinds;
  for (const auto& [kind, list] : description.items()) {
    if (list.is_array()) kinds.push_back(kind);
  }
  return kinds;
}

void print_sweeps(const Workspace& workspace) {
  const auto store = open_store(workspace, ResultStore::Mode::ReadOnly);
  Grid grid = {{"sweep", "created", "runs"}};
  for (const SweepLine& sweep : list_sweeps(*store)) {
    grid.push_back({sweep.name, clock_text(sweep.created_us), counts_text(sweep)});
  }
  print(grid);
}

/// Sources that `references` of a table can name wherever its sweep file lies.
void print_references() {
  Grid grid = {{"source", "rows", "note"}};
  for (const Publication& publication : known_publications({})) {
    const std::string note = publication.rows.empty() ? "" : publication.rows[0].note;
    grid.push_back({publication.source, cat(publication.rows.size()), note});
  }
  print(grid);
}

std::string text_of(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

void print_settings(const json& params) {
  Grid grid = {{"setting", "type", "default", "accepted", ""}};
  for (const json& param : params) {
    const auto field = [&](const char* key) { return text_of(param.value(key, json(""))); };
    const std::string fallback = field("default");
    grid.push_back({field("key"), field("type"), fallback.empty() ? "required" : fallback,
                    field("bounds"), field("help")});
  }
  print(grid, "  ");
}

/// Things with names, or (the keys of a run table) settings.
void print_kind(const json& list) {
  if (!list.empty() && list[0].contains("key")) return print_settings(list);
  Grid grid;
  for (const json& entry : list) {
    grid.push_back({entry.at("name").get<std::string>(), entry.value("summary", "")});
  }
  print(grid, "  ");
}

void print_entry(const json& entry) {
  Grid facts;
  for (const auto& [key, value] : entry.items()) {
    if (key == "params" || (value.is_string() && value.get<std::string>().empty())) continue;
    facts.push_back({key, text_of(value)});
  }
  print(facts);
  const json params = entry.value("params", json::array());
  if (params.empty()) return;
  std::cout << "\n";
  print_settings(params);
}

int run(const Options& options, const GlobalOptions& globals) {
  const Workspace workspace = globals.workspace();
  if (options.kind == "sweeps" || options.kind == "references") {
    options.kind == "sweeps" ? print_sweeps(workspace) : print_references();
    return 0;
  }
  const json description = describe_train_program(workspace);
  std::vector<std::string> kinds = kinds_of(description);
  if (options.kind.empty()) {
    for (const std::string& kind : kinds) {
      std::cout << kind << "\n";
      print_kind(description.at(kind));
    }
    return 0;
  }
  kinds.insert(kinds.end(), {"references", "sweeps"});
  if (std::find(kinds.begin(), kinds.end(), options.kind) == kinds.end()) {
    throw SpecError(
        cat("there is no list of \"", options.kind, "\"", suggestion(options.kind, kinds)));
  }
  const json& list = description.at(options.kind);
  if (options.name.empty()) {
    print_kind(list);
    return 0;
  }
  std::vector<std::string> names;
  for (const json& entry : list) {
    names.push_back(entry.value("name", ""));
    if (names.back() != options.name) continue;
    print_entry(entry);
    return 0;
  }
  throw SpecError(cat("no ", options.kind, " are called \"", options.name, "\"",
                      suggestion(options.name, names)));
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  app.add_option("kind", options->kind,
                 "methods, models, datasets ..., references or sweeps (default: all registries)")
      ->type_name("KIND");
  app.add_option("name", options->name, "Show the settings of one")->type_name("NAME");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "list",
    .position = 14,
    .summary = "What exists: methods, models, data sets, with their settings; references; sweeps",
    .examples = "  ablate list\n"
                "  ablate list methods tome       its settings, defaults and bounds\n"
                "  ablate list references         published numbers that tables can print\n"
                "  ablate list sweeps\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::list_command
