#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "results/ingest.h"
#include "runner/cli/command.h"
#include "runner/cli/watch.h"
#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate::cli::ingest_command {
namespace {

struct Options {
  std::vector<std::string> places;
  bool watch = false;
};

void print(const IngestReport& report) {
  if (report.files > 0) {
    std::cout << report.files << " files, " << report.points << " points, " << report.records
              << " records of " << report.runs.size() << " runs";
    if (report.superseded > 0) std::cout << "; " << report.superseded << " points superseded";
    std::cout << std::endl;
  }
  for (const std::string& problem : report.problems) std::cerr << "problem: " << problem << "\n";
}

std::vector<std::filesystem::path> places_of(const Options& options, const Workspace& workspace) {
  std::vector<std::filesystem::path> places;
  for (const std::string& place : options.places) {
    if (!std::filesystem::exists(place)) throw SpecError(cat(place, " does not exist"));
    places.emplace_back(place);
  }
  if (!places.empty()) return places;
  for (const char* name : {"runs", "bench"}) {
    if (std::filesystem::exists(workspace.out / name)) places.push_back(workspace.out / name);
  }
  if (places.empty()) {
    throw SpecError(cat("there are no spools below ", workspace.out.string(),
                        ": name folders or files, or another --out"));
  }
  return places;
}

int run(const Options& options, const GlobalOptions& globals) {
  const Workspace workspace = globals.workspace();
  const auto places = places_of(options, workspace);
  make_directories(workspace.database.parent_path());
  ResultStore store(workspace.database);
  Ingester ingester(store);
  bool problems = false;
  watch([&] {
    const IngestReport report = ingester.ingest(places);
    print(report);
    if (report.files == 0 && !options.watch) std::cout << "nothing new\n";
    problems = problems || !report.problems.empty();
    return options.watch;
  });
  return static_cast<int>(problems ? ExitCode::Failed : ExitCode::Done);
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  app.add_option("places", options->places,
                 "Spool files, or folders of them (default: those of --out)")
      ->type_name("PATH");
  app.add_flag("--watch", options->watch, "Go on as spools grow, until Ctrl-C");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "ingest",
    .position = 11,
    .summary = "Read spool files into the database, each record exactly once",
    .examples = "  ablate ingest                        everything in --out\n"
                "  ablate ingest /mnt/cluster/out/runs  spools of another machine\n"
                "  ablate ingest --watch\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::ingest_command
