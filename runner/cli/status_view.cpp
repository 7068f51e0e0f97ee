#include "runner/cli/status_view.h"

#include <algorithm>
#include <cmath>
#include <iostream>

#include "results/ingest.h"
#include "results/text_grid.h"
#include "runner/cli/store_access.h"
#include "runner/cli/watch.h"
#include "runner/core/error.h"
#include "runner/core/run_paths.h"
#include "sweeps/job_record.h"
#include "sweeps/run_state.h"
#include "sweeps/slurm_array.h"
#include "sweeps/spool_follower.h"

namespace ablate {
namespace {

using nlohmann::ordered_json;
using namespace std::chrono_literals;

constexpr auto kNewLinesEvery = 30s;

RunProgress progress_of(const RunLine& line, const Workspace& workspace) {
  return SpoolFollower(RunPaths(workspace.out, line.run_uid).spool(line.attempts, 0)).update();
}

/// A run at work: how far it is, and where.
struct LiveLine {
  RunProgress progress;
  std::optional<JobRecord> job;

  std::optional<double> images_per_s() const {
    if (!job || job->global_batch == 0 || progress.step_s.value_or(0) <= 0) return std::nullopt;
    return static_cast<double>(job->global_batch) / *progress.step_s;
  }
  std::optional<double> seconds_left() const {
    if (!job || job->total_steps == 0 || progress.step_s.value_or(0) <= 0) return std::nullopt;
    return static_cast<double>(job->total_steps - progress.step) * *progress.step_s;
  }
};

LiveLine live_line(const RunLine& line, const Workspace& workspace) {
  return {progress_of(line, workspace), read_job_record(RunPaths(workspace.out, line.run_uid))};
}

std::string live_text(const LiveLine& live) {
  const RunProgress& progress = live.progress;
  std::string text = cat("step ", progress.step);
  if (live.job && live.job->total_steps > 0) text += cat(" of ", live.job->total_steps);
  if (progress.loss) text += cat(", loss ", *progress.loss);
  if (progress.score) text += cat(", ", progress.score->name, " ", progress.score->value);
  if (const auto speed = live.images_per_s()) text += cat(", ", std::llround(*speed), " images/s");
  if (const auto left = live.seconds_left()) text += cat(", ", human_duration(*left), " left");
  return text;
}

/// What Slurm said last about the element that works on a run; nothing for runs of this machine.
std::optional<SlurmElement> element_of(const LiveLine& live, const Workspace& workspace) {
  if (!live.job || live.job->handle.value("executor", "") != "slurm") return std::nullopt;
  return read_queue(workspace.out, live.job->handle.value("array", ""),
                    live.job->handle.value("element", -1));
}

std::string running_text(const LiveLine& live, const Workspace& workspace) {
  const auto element = element_of(live, workspace);
  if (!element) return live_text(live);
  if (live.progress.records > 0) return cat(live_text(live), ", job ", element->job);
  return cat("job ", element->job, " ", element->state,
             element->reason == "None" ? "" : cat(" (", element->reason, ")"));
}

std::string remark(const RunLine& line, const Workspace& workspace) {
  if (line.state == "running") return running_text(live_line(line, workspace), workspace);
  if (line.state == "done" || line.cause.empty()) return "";
  return line.detail.empty() ? line.cause : cat(line.cause, ": ", line.detail);
}

std::string duration_text(const RunLine& line) {
  if (!line.start_us) return "";
  const std::int64_t end = line.end_us.value_or(now_microseconds());
  return human_duration(static_cast<double>(end - *line.start_us) * 1e-6);
}

template <typename T>
ordered_json optional_json(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

ordered_json run_json(const RunLine& line, const Workspace& workspace) {
  ordered_json run = {{"id", line.run_uid},
                      {"label", line.label},
                      {"dataset", line.dataset},
                      {"seed", line.seed},
                      {"state", line.state},
                      {"attempts", line.attempts},
                      {"cause", line.cause},
                      {"detail", line.detail},
                      {"start_us", optional_json(line.start_us)},
                      {"end_us", optional_json(line.end_us)},
                      {"step", optional_json(line.last_step)}};
  if (line.state == "running") {
    const LiveLine live = live_line(line, workspace);
    run["step"] = live.progress.step;
    run["loss"] = optional_json(live.progress.loss);
    run["top1"] = nullptr;  // where it is another metric, that one stands beside it
    if (const auto& score = live.progress.score) run[score->name] = score->value;
    run["images_per_s"] = optional_json(live.images_per_s());
    run["seconds_left"] = optional_json(live.seconds_left());
    if (const auto element = element_of(live, workspace)) {
      run["slurm"] = {
          {"job", element->job}, {"state", element->state}, {"reason", element->reason}};
    }
  }
  return run;
}

/// Who works on the runs of a database; nothing when nobody does.
std::optional<std::string> worker_of(const Workspace& workspace) {
  return Lease::holder(ingest_lease(workspace.database));
}

/// Lines of a text, each no wider than the terminal.
std::string clipped(const std::string& text, TerminalStyle style) {
  std::vector<std::string> lines = split(text, '\n');
  for (std::string& line : lines) line = clip_text(line, static_cast<std::size_t>(style.width));
  return join(lines, "\n");
}

}  // namespace

std::string counts_text(const SweepLine& sweep) {
  std::vector<std::string> parts;
  for (const auto& [state, count] : sweep.runs_by_state) parts.push_back(cat(count, " ", state));
  return join(parts);
}

std::string status_text(ResultStore& store, const SweepLine& sweep, const Workspace& workspace) {
  std::string text = cat(sweep.name, ": ", counts_text(sweep), "\n");
  std::vector<std::vector<std::string>> grid = {
      {"id", "run", "state", "attempts", "last attempt", "remark"}};
  for (const RunLine& line : sweep_runs(store, sweep.name)) {
    grid.push_back({short_id(line.run_uid), run_name(line), line.state, cat(line.attempts),
                    duration_text(line), remark(line, workspace)});
  }
  using enum Align;
  for (const std::string& line : grid_lines(grid, {Left, Left, Left, Right, Right, Left})) {
    text += cat("  ", line, "\n");
  }
  return text;
}

ordered_json status_json(ResultStore& store, const SweepLine& sweep, const Workspace& workspace) {
  ordered_json runs = ordered_json::array();
  for (const RunLine& line : sweep_runs(store, sweep.name)) {
    runs.push_back(run_json(line, workspace));
  }
  return {{"sweep", sweep.name},
          {"created_us", sweep.created_us},
          {"counts", sweep.runs_by_state},
          {"runs", std::move(runs)}};
}

void ChangingText::show(const std::string& text, bool last) {
  if (style_.redraw) return show_in_place(text);
  const auto now = std::chrono::steady_clock::now();
  if (now < next_ && !last) return;
  next_ = now + kNewLinesEvery;
  show_new_lines(text);
}

void ChangingText::show_in_place(const std::string& text) {
  std::cout << "\x1b[H\x1b[2J" << clipped(text, style_) << std::flush;
}

void ChangingText::show_new_lines(const std::string& text) {
  std::set<std::string> lines;
  for (const std::string& line : split(text, '\n')) {
    if (!line.empty() && !shown_.contains(line)) std::cout << line << "\n";
    lines.insert(line);
  }
  std::cout << std::flush;
  shown_ = std::move(lines);
}

bool follow_sweep(const std::string& name, const Workspace& workspace, TerminalStyle style) {
  ChangingText view(style);
  int idle = 0;  // looks in a row that saw nobody: between two tasks there is a moment of that
  return watch([&] {
    const auto store = open_store(workspace, ResultStore::Mode::ReadOnly);
    const auto worker = worker_of(workspace);
    idle = worker ? 0 : idle + 1;
    const bool over = idle > 1;
    view.show(cat(status_text(*store, find_sweep(*store, name), workspace),
                  worker ? "followed: " + *worker : "nobody works on it", "\n"),
              over);
    return !over;
  });
}

}  // namespace ablate
