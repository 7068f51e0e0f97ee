#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "results/sqlite.h"
#include "runner/cli/command.h"
#include "runner/cli/print_table.h"
#include "runner/cli/store_access.h"
#include "runner/core/error.h"
#include "sweeps/sweep_spec.h"

namespace ablate::cli::table_command {
namespace {

struct Options {
  std::string sweep, format = "terminal", columns, baseline, output;
};

/// The sweep file that the database keeps for a name.
SweepSpec stored_sweep(ResultStore& store, const std::string& name) {
  const auto text = with_database_errors(store.file(), [&] {
    return query_text(store.database(), "SELECT spec_toml FROM sweep WHERE name = ?", name);
  });
  if (!text) {
    std::vector<std::string> names;
    for (const SweepLine& sweep : list_sweeps(store)) names.push_back(sweep.name);
    throw SpecError(cat("\"", name, "\" is neither a file nor a sweep of ", store.file().string(),
                        suggestion(name, names)));
  }
  return parse_sweep_text(*text, name);
}

TableRequest make_request(ResultStore& store, const Options& options) {
  const bool is_file = std::filesystem::is_regular_file(options.sweep);
  const SweepSpec sweep = is_file ? parse_sweep(options.sweep) : stored_sweep(store, options.sweep);
  TableRequest request{sweep.name, sweep.title, sweep.table, is_file ? options.sweep : "",
                       options.format};
  const Origin origin{"command line"};
  if (!options.columns.empty()) {
    Value::Array columns;
    for (const std::string& column : split(options.columns, ','))
      columns.emplace_back(column, origin);
    request.layout["columns"] = Value(std::move(columns), origin);
  }
  if (!options.baseline.empty()) request.layout["baseline"] = Value(options.baseline, origin);
  return request;
}

int run(const Options& options, const GlobalOptions& globals) {
  const auto store = open_store(globals.workspace(), ResultStore::Mode::ReadOnly);
  const TableRequest request = make_request(*store, options);
  if (options.output.empty()) {
    print_table(*store, request, globals.style(1), std::cout);
    return 0;
  }
  std::ofstream out(options.output, std::ios::binary);
  print_table(*store, request, {}, out);
  if (!out.flush()) throw Error(cat(options.output, ": cannot be written"));
  return 0;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  app.add_option("sweep", options->sweep, "Sweep file, or name of a sweep in the database")
      ->required()
      ->type_name("FILE|SWEEP");
  app.add_option("--format,-f", options->format, "terminal, markdown, latex (booktabs) or csv")
      ->check(CLI::IsMember(table_formats()))
      ->capture_default_str();
  app.add_option("--columns", options->columns, "Other columns than [table] says")
      ->type_name("A,B,...");
  app.add_option("--baseline", options->baseline, "Another row to compare with")
      ->type_name("LABEL");
  app.add_option("--output,-o", options->output, "Write to a file")->type_name("FILE");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "table",
    .position = 5,
    .summary = "The ablation table of a sweep, as far as it is done",
    .examples = "  ablate table sweeps/tables/demo.toml\n"
                "  ablate table demo --format latex -o table.tex     booktabs\n"
                "  ablate table demo --columns top1,gmacs --baseline dense --format csv\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::table_command
