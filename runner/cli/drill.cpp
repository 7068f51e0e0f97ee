#include "runner/cli/drill.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <optional>

#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kSlowFrom = 4;      // steps until others act
constexpr std::int64_t kActAt = 6;         // steps that are seen by then
constexpr double kControllerSeconds = 20;  // of silence

std::vector<const DrillCase*> chosen_cases(const DrillOptions& options) {
  std::vector<const DrillCase*> chosen;
  for (const DrillCase& drill : drill_cases()) {
    const bool named =
        std::find(options.only.begin(), options.only.end(), drill.name) != options.only.end();
    if (!options.only.empty() ? named : !drill.slurm_only || options.executor == "slurm") {
      chosen.push_back(&drill);
    }
    if (named && drill.slurm_only && options.executor != "slurm") {
      throw SpecError(cat("--only ", drill.name, " needs --executor slurm"));
    }
  }
  return chosen;
}

/// A folder of this drill alone, below the output folder because that is what runs will use.
fs::path make_folder(const fs::path& out) {
  make_directories(out);
  for (int i = 0;; ++i) {
    const fs::path folder = out / cat("drill-", std::time(nullptr), i == 0 ? "" : cat("-", i));
    if (fs::create_directory(folder)) return folder;
  }
}

}  // namespace

Drill::Drill(const DrillOptions& options, const Workspace& workspace, Callbacks callbacks)
    : options_(options),
      workspace_(workspace),
      callbacks_(std::move(callbacks)),
      cases_(chosen_cases(options)),
      settings_({cat("launch.executor=", options.executor == "slurm" ? "slurm" : "mpirun")}) {
  settings_.insert(settings_.end(), options.settings.begin(), options.settings.end());
}

/// Signals of Slurm come to the batch script, everything else is the ranks' own doing.
bool Drill::from_outside(const DrillCase& drill) const {
  const bool signal = drill.fault == DrillKind::Term || drill.fault == DrillKind::Usr1;
  return drill.fault == DrillKind::Slow || (signal && on_slurm());
}

DrillFault Drill::fault_of(const DrillCase& drill) const {
  const bool outside = from_outside(drill);
  return {.kind = outside ? DrillKind::Slow : drill.fault,
          .run = undisturbed_.runs.at(0).id,
          .attempt = 1,
          .rank = drill.target == DrillTarget::LastRank ? launch_.ranks - 1 : 0,
          .step = outside ? kSlowFrom : DrillSweep::kFaultStep};
}

/// Does from outside what a rank cannot do to itself. False when the sweep had ended before.
bool Drill::act(const DrillCase& drill, DrillSweep& sweep, const ControllerLoss* loss,
                StopSignal& stop) const {
  const std::string run = undisturbed_.runs.at(0).id;
  if (!sweep.wait_for_steps(run, kActAt, options_.patience, stop)) return false;
  if (drill.target == DrillTarget::Ablate) {
    sweep.kill();
    sweep.start();
  } else if (loss != nullptr) {
    loss->begin();
    sweep.wait(kControllerSeconds, stop);
    loss->end();
  } else {
    signal_element(sweep.out(), run, drill.fault == DrillKind::Term ? "TERM" : "USR1");
  }
  return true;
}

DrillVerdict Drill::strike(const DrillCase& drill, DrillSweep& sweep, StopSignal& stop) {
  const DrillFault fault = fault_of(drill);
  std::optional<ControllerLoss> loss;
  if (drill.target == DrillTarget::Controller) {
    loss.emplace(sweep.out() / "commands");
    sweep.set_variable("PATH", loss->path());
  }
  sweep.plan(fault);
  sweep.start();
  const bool acted = !from_outside(drill) || act(drill, sweep, loss ? &*loss : nullptr, stop);
  const bool ended = sweep.wait(acted ? options_.patience : 0, stop);
  if (!ended) sweep.end();
  DrillRecord record = sweep.record();
  record.timed_out = !ended;
  if (ended && !acted) {
    return {false, cat("the sweep ended before it was struck: ", record.last_words()),
            "see its log; a sweep that fails by itself says why"};
  }
  return judge_drill(drill, undisturbed_, record, fault.run, launch_);
}

/// What all others are compared with.
DrillVerdict Drill::calm(DrillSweep& sweep, StopSignal& stop) {
  launch_ = sweep.launch();
  sweep.start();
  const bool ended = sweep.wait(options_.patience, stop);
  if (!ended) sweep.end();
  undisturbed_ = sweep.record();
  const auto done = std::count_if(undisturbed_.runs.begin(), undisturbed_.runs.end(),
                                  [](const DrillRun& run) { return run.state == "done"; });
  const bool good =
      ended && undisturbed_.exit_code == 0 && done > 0 && done == std::ssize(undisturbed_.runs);
  if (good) return {true, cat(done, " runs are done"), ""};
  return {false,
          cat(done, " of ", undisturbed_.runs.size(), " runs are done", ended ? "" : " in time",
              ": ", undisturbed_.last_words()),
          on_slurm() ? "`ablate doctor --slurm`; settings such as launch.slurm.partition=NAME"
                     : "`ablate doctor`"};
}

void Drill::try_out(std::string_view name, std::string_view what,
                    const std::function<DrillVerdict(DrillSweep&)>& body, std::string_view fix,
                    const StopSignal& stop) {
  callbacks_.begin(name, what);
  const auto begin = Clock::now();
  DrillResult result{.name = std::string(name),
                     .what = std::string(what),
                     .verdict = {},
                     .folder = folder_ / name};
  DrillSweep sweep(result.folder, workspace_, settings_);
  try {
    result.verdict = body(sweep);
  } catch (const SpecError&) {
    throw;  // the same for all
  } catch (const Error& error) {
    sweep.end();
    result.verdict = {false, error.what(), std::string(fix)};
  }
  if (!stop.reason().empty()) return;
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  callbacks_.end(result);
  std::error_code ignored;
  if (result.verdict.passed && !options_.keep) fs::remove_all(result.folder, ignored);
  results_.push_back(std::move(result));
}

void Drill::run(StopSignal& stop) {
  folder_ = make_folder(workspace_.out);
  try_out(
      "undisturbed", "nothing happens", [&](DrillSweep& sweep) { return calm(sweep, stop); },
      "`ablate doctor`", stop);
  for (const DrillCase* drill : cases_) {
    if (passed() == 0 || stop.requested()) break;
    try_out(
        drill->name, drill->what, [&](DrillSweep& sweep) { return strike(*drill, sweep, stop); },
        drill->fix, stop);
  }
  std::error_code not_empty;
  if (!options_.keep) fs::remove(folder_, not_empty);
}

std::size_t Drill::passed() const {
  return static_cast<std::size_t>(
      std::count_if(results_.begin(), results_.end(),
                    [](const DrillResult& result) { return result.verdict.passed; }));
}

}  // namespace ablate
