#include "sweeps/plan.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <unistd.h>

#include "results/sqlite.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/process.h"
#include "sweeps/run_state.h"

namespace ablate {
namespace {

// Assumed speeds, for the first estimate on a machine only: what small transformers reach through
// LibTorch, in multiply-accumulates a second.
constexpr double kMacsPerCoreSecond = 3e10;
constexpr double kMacsPerGpuSecond = 2e13;
constexpr double kStartSeconds = 3;  // process start, data set, model
constexpr double kBytesPerParameter = 4;
constexpr double kTrainingCopies = 3;  // weights and the two moments of AdamW in a checkpoint

/// Multiply-accumulates of a run whose methods save nothing: backward costs two forwards, a teacher
/// sees every training image once.
double work_of(const ResolvedRun& run) {
  const auto& training = run.spec.at("training");
  const double train_images = static_cast<double>(run.total_steps) *
                              static_cast<double>(training.at("global_batch").get<std::int64_t>());
  const auto steps_between = static_cast<double>(run.steps_per_epoch) *
                             static_cast<double>(training.value("evaluate_every", 1));
  const double evaluations =
      1 + (steps_between > 0 ? std::ceil(static_cast<double>(run.total_steps) / steps_between) : 0);
  return static_cast<double>(run.base_macs) *
             (3 * train_images + evaluations * static_cast<double>(run.test_size)) +
         static_cast<double>(run.teacher_macs) * train_images;
}

double guessed_speed(const Launch& launch) {
  const bool gpu = (launch.executor == "slurm" && launch.slurm.gpus > 0) ||
                   launch.device == "cuda" ||
                   (launch.device == "auto" && ::access("/dev/nvidia0", F_OK) == 0);
  if (gpu) return kMacsPerGpuSecond * launch.ranks;
  const auto wanted =
      static_cast<std::size_t>(launch.ranks) * static_cast<std::size_t>(launch.threads);
  // Slurm gives what is asked for; here jobs share the cores.
  const std::size_t cores = launch.executor == "slurm"
                                ? wanted
                                : available_cpus().size() / static_cast<std::size_t>(launch.jobs);
  return kMacsPerCoreSecond *
         static_cast<double>(std::max<std::size_t>(1, std::min(cores, wanted)));
}

/// Wall seconds of finished runs, of those that shared a process their share: by run, and averaged
/// by configuration.
struct Measured {
  std::map<std::string, double> by_config;
  double seconds = 0, work = 0;
};

Measured measure(const std::vector<ResolvedRun>& runs, ResultStore* store) {
  Measured measured;
  if (store == nullptr) return measured;
  std::map<std::string, std::pair<double, int>> sums;
  auto query = prepare(store->database(),
                       "SELECT sum((end_us - start_us) / 1e6 / coalesce(runs_in_process, 1)) AS "
                       "seconds FROM run JOIN attempt "
                       "USING(run_id) WHERE run_uid = ? AND state = 'done' AND n > 0 "
                       "HAVING seconds > 0");
  for (const ResolvedRun& run : runs) {
    rebind(query, run.id);
    if (!query.executeStep()) continue;
    const double seconds = query.getColumn(0).getDouble();
    auto& [sum, count] = sums[run.config_hash];
    sum += seconds;
    ++count;
    measured.seconds += seconds;
    measured.work += work_of(run);
  }
  for (const auto& [config, sum] : sums) measured.by_config[config] = sum.first / sum.second;
  return measured;
}

void estimate(PlannedRun& planned, const ResolvedRun& run, const Measured& measured, double guess) {
  const auto same = measured.by_config.find(run.config_hash);
  if (same != measured.by_config.end()) {
    planned.seconds = same->second;
    planned.source = EstimateSource::SameConfiguration;
  } else if (measured.work > 0) {
    planned.seconds = kStartSeconds + work_of(run) * measured.seconds / measured.work;
    planned.source = EstimateSource::OtherRows;
  } else {
    planned.seconds = kStartSeconds + work_of(run) / guess;
    planned.source = EstimateSource::Guess;
  }
}

void add_disk(Plan& plan, const Launch& launch, const std::vector<ResolvedRun>& runs) {
  double largest = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (!plan.runs[i].to_do()) continue;
    const double bytes = static_cast<double>(runs[i].base_params) * kBytesPerParameter;
    plan.final_bytes += bytes;
    largest = std::max(largest, bytes);
  }
  // One more than are kept: the new one is written before the oldest goes.
  plan.checkpoint_bytes = largest * kTrainingCopies * (launch.keep_checkpoints + 1) * launch.jobs;
}

}  // namespace

bool PlannedRun::ended() const {
  return state == "failed" || state == "diverged" || state == "skipped" || state == "blocked";
}

bool PlannedRun::to_do() const { return state != "done" && !ended(); }

Plan make_plan(const Launch& launch, const std::vector<Draft>& drafts,
               const std::vector<ResolvedRun>& runs, ResultStore* store,
               const Workspace& workspace) {
  ABLATE_CHECK(drafts.size() == runs.size());
  std::vector<std::string> ids;
  for (const ResolvedRun& run : runs) ids.push_back(run.id);
  const auto states = store ? run_states(*store, ids) : std::map<std::string, RunState>{};
  const Measured measured = measure(runs, store);
  const double guess = guessed_speed(launch);

  Plan plan;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const ResolvedRun& run = runs[i];
    PlannedRun planned;
    const auto known = states.find(run.id);
    planned.state = known == states.end() ? "new" : known->second.state;
    for (const DraftParent& parent : drafts[i].parents) {
      if (planned.to_do() && plan.runs[parent.draft].ended()) planned.state = "blocked";
    }
    estimate(planned, run, measured, guess);
    if (planned.to_do()) {
      ++plan.to_do;
      plan.work_s += planned.seconds;
      plan.worst = std::max(plan.worst, planned.source);
    } else {
      ++(planned.state == "done" ? plan.done : plan.ended);
    }
    plan.runs.push_back(std::move(planned));
  }
  plan.wall_s = plan.work_s / launch.jobs;
  add_disk(plan, launch, runs);
  plan.free_bytes = free_bytes(workspace.out);
  return plan;
}

}  // namespace ablate
