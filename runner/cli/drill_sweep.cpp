#include "runner/cli/drill_sweep.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <thread>

#include "results/curve.h"
#include "results/sqlite.h"
#include "results/store.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/run_paths.h"
#include "sweeps/spool_follower.h"
#include "sweeps/sweep_spec.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// Random crops and drop-path: what a resumed run could draw anew.
constexpr std::string_view kSweep = R"(name = "drill"
title = "Two runs to strike"
[run]
dataset = { name = "synthetic", train_size = 1024, test_size = 64, image_size = 16, classes = 4, noise = 8 }
model = { name = "vit", image_size = 16, patch_size = 4, embed_dim = 64, depth = 2, num_heads = 2, drop_path = 0.1 }
epochs = 2
global_batch = 64
optimizer = { name = "adamw", lr = 2e-3 }
[[variant]]
label = "drill"
[seeds]
count = 2
[launch]
ranks = 2
checkpoint_steps = 4
stall_timeout = 30
nccl_timeout = 30
slurm = { look_every = 2, grace = 30 }
[table]
columns = ["top1"]
)";

constexpr auto kLookAtDrillEvery = 50ms;
constexpr double kStopSeconds = 10, kKillSeconds = 30;  // patience with a sweep that is to end

/// A number without rounding.
std::string exact(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%a", value);
  return text;
}

/// Final values and the curve of the loss.
std::string numbers_of(ResultStore& store, const std::string& run) {
  auto rows = prepare(store.database(),
                      "SELECT name, value FROM final JOIN metric USING(metric_id) JOIN run "
                      "USING(run_id) WHERE run_uid = ? AND kind = 'deterministic' ORDER BY name",
                      run);
  std::string numbers;
  while (rows.executeStep()) {
    numbers += cat(rows.getColumn(0).getString(), " ", exact(rows.getColumn(1).getDouble()), "\n");
  }
  for (const CurvePoint& point : read_curve(store, run, "train/loss")) {
    numbers += cat(point.step, " ", exact(point.value), "\n");
  }
  return numbers;
}

DrillRun read_run(ResultStore& store, const RunLine& line, const fs::path& out) {
  DrillRun run{.id = line.run_uid,
               .name = run_name(line),
               .state = line.state,
               .attempts = describe_run(store, line.run_uid).attempts,
               .numbers = numbers_of(store, line.run_uid),
               .weights = {}};
  std::erase_if(run.attempts, [](const AttemptInfo& attempt) { return attempt.n < 1; });
  std::sort(run.attempts.begin(), run.attempts.end(),
            [](const AttemptInfo& a, const AttemptInfo& b) { return a.n < b.n; });
  const fs::path weights = RunPaths(out, line.run_uid).final_weights();
  if (fs::exists(weights)) run.weights = sha256_hex(weights);
  return run;
}

}  // namespace

const DrillRun* DrillRecord::find(const std::string& id) const {
  const auto found =
      std::find_if(runs.begin(), runs.end(), [&](const DrillRun& run) { return run.id == id; });
  return found == runs.end() ? nullptr : &*found;
}

std::string DrillRecord::last_words() const {
  const std::vector<std::string> lines = split(errors, '\n');
  const auto last = std::find_if(lines.rbegin(), lines.rend(),
                                 [](const std::string& line) { return !line.empty(); });
  return last == lines.rend() ? "it said nothing" : *last;
}

DrillSweep::DrillSweep(fs::path folder, const Workspace& workspace,
                       std::vector<std::string> settings)
    : folder_(std::move(folder)),
      train_program_(workspace.require_train_program()),
      settings_(std::move(settings)) {
  make_directories(out());
  write_file_atomic(folder_ / "drill.toml", kSweep);
}

Launch DrillSweep::launch() const { return parse_sweep(folder_ / "drill.toml", settings_).launch; }

void DrillSweep::set_variable(const std::string& name, const std::string& value) {
  variables_.emplace_back(name, value);
}

void DrillSweep::start() {
  ProcessOptions options;
  options.arguments = {(program_folder() / "ablate").string(),
                       "sweep",
                       (folder_ / "drill.toml").string(),
                       "--no-bench",
                       "--color",
                       "never",
                       "--out",
                       out().string(),
                       "--db",
                       (out() / "results.db").string()};
  options.arguments.insert(options.arguments.end(), settings_.begin(), settings_.end());
  options.environment = variables_;
  options.environment.emplace_back("ABLATE_TRAIN", train_program_.string());
  options.output_file = folder_ / "stdout.txt";
  options.error_file = folder_ / "stderr.txt";
  options.die_with_parent = true;
  status_.reset();
  child_ = std::make_unique<ChildProcess>(options);
}

void DrillSweep::kill() {
  ::kill(child_->pid(), SIGKILL);
  child_->wait();
}

bool DrillSweep::wait(double seconds, StopSignal& stop) {
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (!(status_ = child_->poll()) && Clock::now() < end && !stop.requested()) {
    std::this_thread::sleep_for(kLookAtDrillEvery);
  }
  return status_.has_value();
}

bool DrillSweep::wait_for_steps(const std::string& run, std::int64_t steps, double seconds,
                                StopSignal& stop) {
  SpoolFollower follower(RunPaths(out(), run).spool(1, 0));
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (follower.update().step < steps) {
    status_ = child_->poll();
    if (status_ || Clock::now() >= end || stop.requested()) return false;
    std::this_thread::sleep_for(kLookAtDrillEvery);
  }
  return true;
}

/// As a user would: Ctrl-C asks for checkpoints, a second one ends the runs.
void DrillSweep::end() {
  if (!child_ || status_) return;
  ::kill(child_->pid(), SIGINT);
  if ((status_ = child_->wait_for(kStopSeconds))) return;
  ::kill(child_->pid(), SIGINT);
  if ((status_ = child_->wait_for(kKillSeconds))) return;
  child_->signal_group(SIGKILL);
  status_ = child_->wait();
}

DrillRecord DrillSweep::record() const {
  DrillRecord record;
  record.exit_code = status_.value_or(ExitStatus{.code = -1}).code;
  if (fs::exists(folder_ / "stderr.txt")) record.errors = read_file(folder_ / "stderr.txt");
  const fs::path database = out() / "results.db";
  if (!fs::exists(database)) return record;
  ResultStore store(database, ResultStore::Mode::ReadOnly);
  for (const RunLine& line : sweep_runs(store, "drill")) {
    record.runs.push_back(read_run(store, line, out()));
  }
  return record;
}

}  // namespace ablate
