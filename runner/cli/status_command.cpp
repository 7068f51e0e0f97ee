#include <chrono>
#include <iostream>
#include <memory>
#include <thread>

#include <CLI/CLI.hpp>

#include "results/text_grid.h"
#include "runner/cli/command.h"
#include "runner/cli/store_access.h"
#include "runner/core/error.h"
#include "runner/core/run_paths.h"
#include "runner/core/stop.h"
#include "sweeps/run_state.h"
#include "sweeps/spool_follower.h"

namespace ablate::cli::status_command {
namespace {

using Grid = std::vector<std::vector<std::string>>;

struct Options {
  std::string sweep;
  bool watch = false;
};

std::string counts_text(const SweepLine& sweep) {
  std::vector<std::string> parts;
  for (const auto& [state, count] : sweep.runs_by_state) parts.push_back(cat(count, " ", state));
  return join(parts);
}

/// What a run is doing now, from its spool: the database may lag behind.
std::string live_text(const RunLine& line, const Workspace& workspace) {
  SpoolFollower follower(RunPaths(workspace.out, line.run_uid).spool(line.attempts, 0));
  const RunProgress& progress = follower.update();
  std::string text = cat("step ", progress.step);
  if (progress.loss) text += cat(", loss ", *progress.loss);
  if (progress.top1) text += cat(", top1 ", *progress.top1);
  return text;
}

std::string remark(const RunLine& line, const Workspace& workspace) {
  if (line.state == "running") return live_text(line, workspace);
  if (line.state == "done" || line.cause.empty()) return "";
  return line.detail.empty() ? line.cause : cat(line.cause, ": ", line.detail);
}

std::string duration_text(const RunLine& line) {
  if (!line.start_us) return "";
  const std::int64_t end = line.end_us.value_or(now_microseconds());
  return human_duration(static_cast<double>(end - *line.start_us) * 1e-6);
}

void print_sweep(ResultStore& store, const SweepLine& sweep, const Workspace& workspace,
                 std::ostream& out) {
  out << sweep.name << ": " << counts_text(sweep) << "\n";
  Grid grid = {{"id", "run", "state", "attempts", "last attempt", "remark"}};
  for (const RunLine& line : sweep_runs(store, sweep.name)) {
    grid.push_back({short_id(line.run_uid), run_name(line), line.state, cat(line.attempts),
                    duration_text(line), remark(line, workspace)});
  }
  using enum Align;
  for (const std::string& line : grid_lines(grid, {Left, Left, Left, Right, Right, Left})) {
    out << "  " << line << "\n";
  }
}

std::string status_text(const Options& options, const Workspace& workspace) {
  const auto store = open_store(workspace, ResultStore::Mode::ReadOnly);
  std::ostringstream out;
  bool any = false;
  const std::vector<SweepLine> sweeps = list_sweeps(*store);
  std::vector<std::string> names;
  for (const SweepLine& sweep : sweeps) {
    names.push_back(sweep.name);
    if (!options.sweep.empty() && sweep.name != options.sweep) continue;
    any = true;
    print_sweep(*store, sweep, workspace, out);
  }
  if (!any && !options.sweep.empty()) {
    throw SpecError(cat("no sweep \"", options.sweep, "\"", suggestion(options.sweep, names)));
  }
  if (!any) out << "no sweep in " << workspace.database.string() << " yet\n";
  return out.str();
}

int run(const Options& options, const GlobalOptions& globals) {
  const Workspace workspace = globals.workspace();
  const bool redraw = globals.style(1).redraw;
  const StopHandlers handlers;
  StopSignal stop;
  do {
    const std::string text = status_text(options, workspace);
    if (options.watch && redraw) std::cout << "\x1b[H\x1b[2J";
    std::cout << text << std::flush;
    for (int i = 0; options.watch && !stop.requested() && i < 20; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  } while (options.watch && !stop.requested());
  return 0;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto options = std::make_shared<Options>();
  app.add_option("sweep", options->sweep, "Name of a sweep (default: all)")->type_name("NAME");
  app.add_flag("--watch", options->watch, "Show it again every two seconds until Ctrl-C");
  return [options, &globals] { return run(*options, globals); };
}

const CommandRegistration added{{
    .name = "status",
    .position = 3,
    .summary = "What runs, what waits, what failed and why",
    .examples = "  ablate status\n"
                "  ablate status nose_tome_cifar100 --watch\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::status_command
