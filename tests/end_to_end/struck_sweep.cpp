#include "tests/end_to_end/struck_sweep.h"

#include <algorithm>
#include <chrono>

#include <gtest/gtest.h>
#include <signal.h>

#include "runner/core/run_paths.h"
#include "runner/core/text.h"

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

constexpr int kMostStarts = 200;
constexpr double kGlance = 0.001;       // seconds between looks at the runs
constexpr double kLastMoments = 0.030;  // seconds from the first file of the finals to the end

/// Whether a run's final weights are being written, or are there.
bool saves_finals(const RunPaths& paths) {
  return fs::exists(paths.final_directory()) || fs::exists(paths.directory / ".new-final.0");
}

/// What the newest attempt at a run is doing.
std::string stage_of(const RunPaths& paths) {
  const std::string spec = read_file(paths.spec());
  const std::string methods =
      cat(contains(spec, "\"nose\"") ? ", NOSE" : "", contains(spec, "\"tome\"") ? " + ToMe" : "");
  int attempt = 1;
  while (fs::exists(paths.attempt(attempt + 1))) ++attempt;
  if (saves_finals(paths)) return "finishing" + methods;
  if (!fs::exists(paths.spool(attempt, 0))) return "starting" + methods;
  std::error_code pruned;
  for (const auto& entry : fs::directory_iterator(paths.checkpoints(), pruned)) {
    if (entry.path().filename().string().starts_with(".new-")) return "in a checkpoint" + methods;
  }
  return "training" + methods;
}

bool is_mpirun(const ProcessEntry& entry) { return entry.arguments[0] == "mpirun"; }

}  // namespace

bool StruckSweep::run() {
  while (starts_++ < kMostStarts) {
    ProcessOptions options = real_ablate(bench_ / "", arguments_);
    options.output_file = bench_ / "stdout.txt";
    options.error_file = bench_ / "stderr.txt";
    ChildProcess ablate(options);
    const ExitStatus status = follow(ablate);
    if (status.code == 0) return true;
    // Killed by us, interrupted, or given up after attempts without progress.
    const bool known = status.signal == SIGKILL || status.signal == SIGTERM || status.code == 3 ||
                       status.code == 1;
    EXPECT_TRUE(known) << status.str();
    if (!known) return false;
  }
  return false;
}

ExitStatus StruckSweep::follow(ChildProcess& ablate) {
  while (!blows_.empty()) {
    // The last moments of a run are short; blind blows seldom fall into them.
    const auto status = blows_.random_below(3) == 0
                            ? lie_in_wait(ablate)
                            : ablate.wait_for(blows_.random_seconds(longest_wait_));
    if (status) return *status;
    strike(ablate);
  }
  return ablate.wait();
}

/// Waits until a run comes to its end, but not for ever.
std::optional<ExitStatus> StruckSweep::lie_in_wait(ChildProcess& ablate) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(3 * longest_wait_);
  while (std::chrono::steady_clock::now() < end && !somebody_finishes()) {
    if (const auto status = ablate.wait_for(kGlance)) return status;
  }
  return ablate.wait_for(blows_.random_seconds(kLastMoments));
}

bool StruckSweep::somebody_finishes() const {
  std::error_code not_yet;
  for (const auto& entry : fs::directory_iterator(bench_.out() / "runs", not_yet)) {
    const RunPaths paths(bench_.out(), entry.path().filename());
    if (fs::exists(paths.directory / "job.json") && saves_finals(paths)) return true;
  }
  return false;
}

/// One of the live jobs, mpirun first, then its ranks; empty while none runs.
std::vector<ProcessEntry> StruckSweep::choose_job() {
  std::vector<ProcessEntry> launchers, ranks;
  const auto all = processes_naming((bench_.out() / "runs").string());
  for (const ProcessEntry& entry : all) {
    const bool forked = std::any_of(all.begin(), all.end(), [&](const ProcessEntry& other) {
      return is_mpirun(other) && other.id.pid == entry.parent;
    });
    // A child of mpirun that has not become a rank yet looks like its parent.
    if (is_mpirun(entry) && !forked) launchers.push_back(entry);
    if (!is_mpirun(entry) && forked) ranks.push_back(entry);
  }
  if (launchers.empty()) return {};
  std::vector<ProcessEntry> job = {launchers[blows_.random_below(launchers.size())]};
  std::copy_if(ranks.begin(), ranks.end(), std::back_inserter(job),
               [&](const ProcessEntry& rank) { return rank.parent == job[0].id.pid; });
  return job;
}

/// Nothing when the job is over.
std::optional<std::string> StruckSweep::stage(const std::vector<ProcessEntry>& job) const {
  if (job.empty() || !is_running(job[0].id)) return std::nullopt;
  const auto& arguments = job[0].arguments;
  const auto verb = std::find(arguments.begin(), arguments.end(), "run");
  const fs::path spec = *(verb + 1);
  return stage_of(RunPaths(bench_.out(), spec.parent_path().filename()));
}

void StruckSweep::strike(ChildProcess& ablate) {
  const Blow& blow = blows_.next();
  const std::vector<ProcessEntry> victims = choose_job();
  const std::optional<std::string> where = stage(victims);
  if (blow.victim == Victim::Ablate) {
    ablate.signal_group(blow.signal);
    ablate.wait();
  } else if (!where || (blow.victim == Victim::Rank && victims.size() < 2)) {
    return;  // nobody there: later
  } else if (blow.victim == Victim::Rank) {
    ::kill(victims[1 + blows_.random_below(victims.size() - 1)].id.pid, blow.signal);
  } else {
    if (blow.victim == Victim::AblateThenMpirun) {
      ablate.signal_group(SIGKILL);
      ablate.wait();
    }
    ::kill(victims[0].id.pid, blow.signal);
  }
  blows_.fell(where);
}

}  // namespace ablate::test
