#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "results/merge.h"
#include "runner/cli/command.h"
#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate::cli::merge_command {
namespace {

int run(const std::vector<std::string>& sources, const GlobalOptions& globals) {
  const Workspace workspace = globals.workspace();
  for (const std::string& source : sources) {
    if (!std::filesystem::is_regular_file(source)) {
      throw SpecError(cat(source, " does not exist; a results database is expected"));
    }
  }
  make_directories(workspace.database.parent_path());
  ResultStore store(workspace.database);
  bool problems = false;
  for (const std::string& source : sources) {
    const MergeReport report = merge_database(store, source);
    std::cout << source << ": " << report.new_runs << " new runs, " << report.replaced_runs
              << " further along, " << report.kept_runs << " known\n";
    for (const std::string& problem : report.problems) std::cerr << "problem: " << problem << "\n";
    problems = problems || !report.problems.empty();
  }
  return static_cast<int>(problems ? ExitCode::Failed : ExitCode::Done);
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto sources = std::make_shared<std::vector<std::string>>();
  app.add_option("databases", *sources, "Databases of other machines; they are only read")
      ->required()
      ->type_name("DB");
  return [sources, &globals] { return run(*sources, globals); };
}

const CommandRegistration added{{
    .name = "merge",
    .position = 12,
    .summary = "Take over the results of other machines' databases",
    .examples = "  ablate merge node1.db node2.db --db all.db\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::merge_command
