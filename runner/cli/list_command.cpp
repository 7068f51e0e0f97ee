#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "results/table_spec.h"
#include "results/text_grid.h"
#include "runner/cli/command.h"
#include "runner/cli/method_pairs.h"
#include "runner/cli/print_table.h"
#include "runner/cli/status_view.h"
#include "runner/cli/store_access.h"
#include "runner/cli/train_info.h"
#include "runner/core/error.h"
#include "sweeps/launch.h"

namespace ablate::cli::list_command {
namespace {

using nlohmann::json;
using Grid = std::vector<std::vector<std::string>>;

struct Options {
  std::string kind, name;
  bool pairs = false;
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
  if (!value.is_array()) return value.is_string() ? value.get<std::string>() : value.dump();
  std::vector<std::string> parts;
  for (const json& element : value) parts.push_back(text_of(element));
  return join(parts);
}

void print_settings(const json& params) {
  Grid grid = {{"setting", "type", "default", "accepted", ""}};
  for (const json& param : params) {
    const auto field = [&](const char* key) { return text_of(param.value(key, json(""))); };
    const std::string fallback = field("default");
    const bool optional = field("type") == "table";  // read by hand: left out without harm
    grid.push_back({field("key"), field("type"),
                    fallback.empty() && !optional ? "required" : fallback, field("bounds"),
                    field("help")});
  }
  print(grid, "  ");
}

void print_section(const std::vector<ParamHelp>& settings) {
  json params = json::array();
  for (const ParamHelp& setting : settings) {
    params.push_back({{"key", setting.key},
                      {"type", setting.type},
                      {"default", setting.default_value},
                      {"bounds", setting.bounds},
                      {"help", setting.help}});
  }
  print_settings(params);
}

/// Things with names, or (the keys of a run table) settings.
void print_kind(const json& list) {
  if (!list.empty() && list[0].contains("key")) return print_settings(list);
  Grid grid;
  for (const json& entry : list) {
    const bool ours = !entry.value("reconstruction", "").empty();
    grid.push_back({entry.at("name").get<std::string>(),
                    entry.value("summary", "") + (ours ? " (in part a reconstruction)" : "")});
  }
  print(grid, "  ");
}

void print_entry(const json& entry) {
  Grid facts = {{"name", text_of(entry.at("name"))}};
  for (const auto& [key, value] : entry.items()) {
    if (key == "name" || key == "params" || value.empty() || text_of(value).empty()) continue;
    facts.push_back({key, text_of(value)});
  }
  print(facts);
  const json params = entry.value("params", json::array());
  if (params.empty()) return;
  std::cout << "\n";
  print_settings(params);
}

/// Lists that need no ablate-train.
bool print_own(const std::string& kind, const Workspace& workspace) {
  if (kind == "sweeps") {
    print_sweeps(workspace);
  } else if (kind == "references") {
    print_references();
  } else if (kind == "launch") {
    print_section(launch_settings());
  } else if (kind == "table") {
    print_section(table_settings());
  } else {
    return false;
  }
  return true;
}

void print_pairs(const Options& options, const Workspace& workspace) {
  if (!options.name.empty() || !(options.kind.empty() || options.kind == "methods")) {
    throw SpecError("list --pairs: shows all methods; leave out what else to list");
  }
  const json description = describe_train_program(workspace);
  for (const std::string& line : pair_lines(description.at("pairs"))) std::cout << line << "\n";
}

int run(const Options& options, const GlobalOptions& globals) {
  const Workspace workspace = globals.workspace();
  if (options.pairs) {
    print_pairs(options, workspace);
    return 0;
  }
  if (print_own(options.kind, workspace)) {
    if (options.name.empty()) return 0;
    throw SpecError(cat("list ", options.kind, ": takes no name of an entry"));
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
  kinds.insert(kinds.end(), {"launch", "table", "references", "sweeps"});
  if (std::find(kinds.begin(), kinds.end(), options.kind) == kinds.end()) {
    throw SpecError(
        cat("there is no list of \"", options.kind, "\"", suggestion(options.kind, kinds)));
  }
  const json& list = description.at(options.kind);
  if (options.name.empty()) {
    list.size() == 1 ? print_entry(list[0]) : print_kind(list);
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
  app.add_option(
         "kind", options->kind,
         "methods, models, datasets ..., launch, table, references, sweeps (default: registries)")
      ->type_name("KIND");
  app.add_option("name", options->name, "Show the settings of one")->type_name("NAME");
  app.add_flag("--pairs", options->pairs, "Which methods can be combined, or why not");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "list",
    .position = 14,
    .summary = "What exists: methods, models, data sets, with their settings; references; sweeps",
    .examples = "  ablate list\n"
                "  ablate list methods tome       its settings, defaults and bounds\n"
                "  ablate list --pairs            which methods can be combined\n"
                "  ablate list launch             settings of [launch]; so also: table\n"
                "  ablate list references         published numbers that tables can print\n"
                "  ablate list sweeps\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::list_command
