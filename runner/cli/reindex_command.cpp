#include <iostream>

#include <CLI/CLI.hpp>

#include "results/ingest.h"
#include "results/projection.h"
#include "runner/cli/command.h"
#include "runner/cli/store_access.h"

namespace ablate::cli::reindex_command {
namespace {

int run(const GlobalOptions& globals) {
  const auto store = open_store(globals.workspace(), ResultStore::Mode::ReadWrite);
  store->check(/*thorough=*/true);
  const Ingester exclusive(*store);  // nobody else may write meanwhile
  const ReindexReport report = reindex(*store);
  std::cout << report.finals << " final values from " << report.series << " series; "
            << report.sealed_runs << " runs packed\n";
  return 0;
}

std::function<int()> add(CLI::App&, const GlobalOptions& globals) {
  return [&globals] { return run(globals); };
}

const CommandRegistration added{{
    .name = "reindex",
    .position = 13,
    .summary = "Check the database and rebuild what tables are made from",
    .examples = "  ablate reindex\n"
                "A lost database comes back from the spools: ablate ingest\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::reindex_command
