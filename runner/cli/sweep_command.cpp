#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>

#include "results/table_columns.h"
#include "results/table_spec.h"
#include "runner/cli/command.h"
#include "runner/cli/launch_runs.h"
#include "runner/cli/print_table.h"
#include "runner/cli/status_view.h"
#include "runner/cli/store_access.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/process.h"
#include "runner/core/run_paths.h"
#include "runner/core/run_spec.h"
#include "runner/core/stop.h"
#include "sweeps/bench_jobs.h"

namespace ablate::cli::sweep_command {
namespace {

struct Options {
  std::string file;
  std::vector<std::string> overrides;
  bool dry_run = false, fail_fast = false, keep_going = false, no_bench = false, watch = false;
  bool specs_only = false;
  std::optional<int> seeds, jobs;
};

SweepSpec parse(const Options& options) {
  std::vector<std::string> overrides = options.overrides;
  if (options.seeds) overrides.push_back(cat("seeds.count=", *options.seeds));
  if (options.jobs) overrides.push_back(cat("launch.jobs=", *options.jobs));
  return parse_sweep(options.file, overrides);
}

/// The database when there is one: whoever only looks or fails leaves nothing behind.
std::unique_ptr<ResultStore> existing_store(const Workspace& workspace, ResultStore::Mode mode) {
  if (!std::filesystem::exists(workspace.database)) return nullptr;
  return std::make_unique<ResultStore>(workspace.database, mode);
}

void check_baseline(const std::string& baseline, const SweepSpec& sweep,
                    const std::vector<Draft>& drafts) {
  const std::vector<std::string> labels = row_labels(drafts);
  if (baseline.empty() || std::find(labels.begin(), labels.end(), baseline) != labels.end()) return;
  throw SpecError(cat(sweep.table.find("baseline")->origin().str(),
                      ": table.baseline: no row is \"", baseline, "\"",
                      suggestion(baseline, labels)));
}

/// A column may be any metric, so that only the runs can tell whether there is one. A likely slip
/// is named before that.
void warn_of_columns(const std::vector<std::string>& columns, ResultStore* store) {
  const std::vector<std::string> usual = usual_column_names();
  for (const std::string& column : columns) {
    const std::string near = nearest_name(column.substr(0, column.find('@')), usual);
    const bool known = near == column.substr(0, column.find('@')) ||
                       (store != nullptr && find_column(store->database(), column).source !=
                                                TableColumn::Source::Unknown);
    if (known || near.empty()) continue;
    std::cerr << "note: table.columns: nothing is called \"" << column << "\" yet (did you mean \""
              << near << "\"?)\n";
  }
}

/// A layout that cannot be printed is better known before a night of training than after it.
/// Returns the published numbers it names.
std::vector<Publication> check_layout(const SweepSpec& sweep, const std::vector<Draft>& drafts,
                                      ResultStore* store) {
  const TableSpec layout = parse_table_spec(sweep.table);
  check_baseline(layout.baseline, sweep, drafts);
  warn_of_columns(layout.columns, store);
  if (layout.references.empty()) return {};
  return find_publications(layout.references, known_publications(sweep.file), store);
}

int dry_run(const SweepSpec& sweep, const Workspace& workspace, const GlobalOptions& globals) {
  const ResolvedSweep resolved = resolve_sweep(sweep, workspace);
  const auto store = existing_store(workspace, ResultStore::Mode::ReadOnly);
  check_layout(sweep, resolved.drafts, store.get());
  const Plan plan = make_plan(sweep.launch, resolved.drafts, resolved.runs, store.get(), workspace);
  print_plan(std::cout, globals.style(1), sweep, resolved.drafts, resolved.runs, plan, workspace);
  return 0;
}

/// Speed and memory never come from training runs: what the table lacks is measured now, alone.
int measure(ResultStore& store, const SweepSpec& sweep, const Workspace& workspace,
            const GlobalOptions& globals) {
  const TableSpec layout = parse_table_spec(sweep.table);
  const auto jobs = missing_bench_jobs(store, sweep.name, layout.columns, layout.baseline,
                                       sweep.launch, workspace);
  if (jobs.empty()) return 0;
  if (sweep.launch.executor == "slurm") {
    std::cerr << "note: " << jobs.size() << " speeds are missing and are not measured on a login "
              << "node: in an allocation, ablate sweep " << sweep.file
              << " launch.executor=mpirun measures them\n";
    return 0;
  }
  const StopHandlers handlers;
  StopSignal stop;
  Ingester ingester(store);
  ProgressView view(std::cerr, globals.style(2));
  const auto problems = run_bench_jobs(jobs, sweep.launch, workspace, ingester, view, stop);
  for (const std::string& problem : problems) std::cerr << "no figure: " << problem << "\n";
  if (stop.requested()) return static_cast<int>(ExitCode::Interrupted);
  return static_cast<int>(problems.empty() ? ExitCode::Done : ExitCode::Failed);
}

int run_sweep(const SweepSpec& sweep, const Options& options, const Workspace& workspace,
              const GlobalOptions& globals) {
  make_directories(workspace.out);
  const ResolvedSweep resolved = resolve_sweep(sweep, workspace);
  auto existing = existing_store(workspace, ResultStore::Mode::ReadWrite);
  const auto publications = check_layout(sweep, resolved.drafts, existing.get());
  if (!existing) existing = std::make_unique<ResultStore>(workspace.database);
  ResultStore& store = *existing;
  store.register_sweep({sweep.name, sweep.text}, registered_runs(resolved));
  store_publications(store, publications);
  for (const std::string& problem : take_up_folders(store, resolved, workspace)) {
    std::cerr << "problem  " << problem << "\n";
  }
  const Plan plan = make_plan(sweep.launch, resolved.drafts, resolved.runs, &store, workspace);
  int code = 0;
  if (plan.to_do > 0 || plan.ended > 0) {
    print_plan(std::cerr, globals.style(2), sweep, resolved.drafts, resolved.runs, plan, workspace);
    code =
        launch_runs(store, resolved, plan, {sweep.launch, options.fail_fast}, workspace, globals);
  }
  if (code != static_cast<int>(ExitCode::Interrupted) && !options.no_bench) {
    code = std::max(code, measure(store, sweep, workspace, globals));
  }
  print_table(store, {sweep.name, sweep.title, sweep.table, sweep.file}, globals.style(1),
              std::cout);
  return code;
}

/// Makes the folders of all runs, for ranks that are started by hand where there is no `ablate`.
int write_specs(const SweepSpec& sweep, const Workspace& workspace) {
  const ResolvedSweep resolved = resolve_sweep(sweep, workspace);
  const auto existing = existing_store(workspace, ResultStore::Mode::ReadOnly);
  check_layout(sweep, resolved.drafts, existing.get());
  for (const ResolvedRun& run : resolved.runs) {
    const RunPaths paths(workspace.out, run.id);
    make_directories(paths.directory);
    write_file_atomic(paths.spec(), RunSpec::from_json(run.spec).canonical());
  }
  std::cout << resolved.runs.size() << " specs are below " << (workspace.out / "runs").string()
            << "\nCopy that folder, and where it is then, compute them in one process:\n"
               "  ablate-train run --all --out OUT --at-a-time 4 --data NAME=DIR\n"
               "Copied back, `ablate sweep` takes what was done and goes on with the rest.\n";
  return 0;
}

/// What the sweep itself would end with as its runs stand.
ExitCode exit_code_of(const SweepLine& sweep) {
  ExitCode code = ExitCode::Done;
  for (const auto& [state, count] : sweep.runs_by_state) {
    if (state == "failed" || state == "diverged" || state == "skipped") return ExitCode::Failed;
    if (state != "done") code = ExitCode::Interrupted;
  }
  return code;
}

/// Looks on while another process runs the sweep; then its table. Starts nothing.
int look_on(const SweepSpec& sweep, const Workspace& workspace, const GlobalOptions& globals) {
  const bool over = follow_sweep(sweep.name, workspace, globals.style(1));
  const auto store = open_store(workspace, ResultStore::Mode::ReadOnly);
  if (over) {
    print_table(*store, {sweep.name, sweep.title, sweep.table, sweep.file}, globals.style(1),
                std::cout);
  }
  return static_cast<int>(over ? exit_code_of(find_sweep(*store, sweep.name))
                               : ExitCode::Interrupted);
}

int run(const Options& options, const GlobalOptions& globals) {
  const SweepSpec sweep = parse(options);
  const Workspace workspace = globals.workspace();
  if (sweep.launch.executor == "mpirun") {
    divide_cpus(available_cpus(), sweep.launch.jobs);  // more jobs than cores is an error
  }
  if (options.watch) return look_on(sweep, workspace, globals);
  if (options.dry_run) return dry_run(sweep, workspace, globals);
  if (options.specs_only) return write_specs(sweep, workspace);
  return run_sweep(sweep, options, workspace, globals);
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  app.add_option("file", options->file, "Sweep file")->required()->type_name("FILE");
  app.add_option("settings", options->overrides,
                 "Overrides of [run] (epochs=1), or of a named section (launch.ranks=4)")
      ->type_name("KEY=VALUE");
  auto* dry_run = app.add_flag("--dry-run", options->dry_run, "Print the plan and stop");
  app.add_flag("--watch", options->watch,
               "Start nothing: follow the sweep that another ablate runs, then print its table")
      ->excludes(dry_run);
  app.add_flag("--specs-only", options->specs_only,
               "Write the specs of all runs, to be computed elsewhere, and stop")
      ->excludes(dry_run);
  app.add_option("--seeds", options->seeds, "Number of seeds; only missing runs are started")
      ->check(CLI::Range(1, 10'000));
  app.add_option("--jobs", options->jobs, "Concurrent runs, each on its own cores")
      ->check(CLI::Range(1, 4096));
  auto* keep = app.add_flag("--keep-going", options->keep_going,
                            "Go on with other rows after a run has failed (the default)");
  app.add_flag("--no-bench", options->no_bench,
               "Do not measure speed and memory for the columns that need it");
  app.add_flag("--fail-fast", options->fail_fast, "Stop everything at the first failure")
      ->excludes(keep);
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "sweep",
    .position = 1,
    .summary = "Run or continue a sweep, then print its table",
    .examples = "  ablate sweep sweeps/tables/demo.toml --dry-run      plan, hours, disk\n"
                "  ablate sweep sweeps/tables/cifar100_smoke.toml --data cifar100=/data/cifar\n"
                "  ablate sweep my.toml --watch                        from another terminal\n"
                "  ablate sweep my.toml --seeds 5                      tops up what is missing\n"
                "  ablate sweep my.toml epochs=1 launch.ranks=4        with other settings\n"
                "Ctrl-C stops at the next step with checkpoints; the same command continues.\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::sweep_command
