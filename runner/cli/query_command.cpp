#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "results/query.h"
#include "runner/cli/command.h"
#include "runner/cli/store_access.h"
#include "runner/core/error.h"

namespace ablate::cli::query_command {
namespace {

struct Options {
  std::string sql;
  std::string format = "table";
};

int run(const Options& options, const GlobalOptions& globals) {
  const Workspace workspace = globals.workspace();
  open_store(workspace, ResultStore::Mode::ReadOnly);  // says what is wrong with the file, if so
  const QueryResult result = query_database(workspace.database, options.sql);
  const QueryFormat format = options.format == "csv"    ? QueryFormat::Csv
                             : options.format == "json" ? QueryFormat::Json
                                                        : QueryFormat::Table;
  write_result(result, format, std::cout);
  return 0;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  app.add_option("sql", options->sql, "One SELECT; nothing else is admitted")
      ->required()
      ->type_name("SQL");
  app.add_option("--format", options->format, "table, csv or json")
      ->check(CLI::IsMember({"table", "csv", "json"}))
      ->capture_default_str();
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "query",
    .position = 6,
    .summary = "Read-only SQL on the results database",
    .examples = "  ablate query \"SELECT state, count(*) FROM run GROUP BY state\"\n"
                "  ablate query --format csv \"SELECT label, seed, m.name, value FROM final\n"
                "    JOIN metric m USING(metric_id) JOIN run USING(run_id)\n"
                "    JOIN sweep_variant USING(variant_id) WHERE m.name = 'top1'\"\n"
                "  ablate query \"SELECT * FROM v_holes\"          what is not finished\n"
                "  ablate query \"SELECT name, sql FROM sqlite_schema WHERE type = 'table'\"\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::query_command
