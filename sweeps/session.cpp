#include "sweeps/session.h"

#include "results/ingest.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/run_paths.h"
#include "runner/core/run_spec.h"

namespace ablate {

ResolvedSweep resolve_sweep(const SweepSpec& sweep, const Workspace& workspace) {
  ResolvedSweep resolved;
  resolved.drafts = expand(sweep);
  resolved.runs = resolve_drafts(resolved.drafts, sweep.launch.ranks, workspace);
  return resolved;
}

std::vector<RegisteredRun> registered_runs(const ResolvedSweep& sweep) {
  std::vector<RegisteredRun> runs;
  for (std::size_t i = 0; i < sweep.runs.size(); ++i) {
    RegisteredRun run = registered_run(RunSpec::from_json(sweep.runs[i].spec));
    ABLATE_CHECK(run.run_uid == sweep.runs[i].id,
                 "ablate and ablate-train compute other ids for one spec: they are of different "
                 "versions; build both from one source");
    run.notes = sweep.runs[i].notes;
    run.images_seen = sweep.runs[i].images_seen;
    run.label = sweep.drafts[i].label;
    run.row = sweep.drafts[i].row;
    runs.push_back(std::move(run));
  }
  return runs;
}

namespace {

/// Runs that differ only in methods, augmentation, optimizer or seed load a device about alike.
std::string shape_of(const nlohmann::json& spec) {
  return hash128_hex(
      nlohmann::json::array({spec.at("dataset"), spec.at("model"), spec.at("training")}).dump());
}

}  // namespace

std::vector<ScheduledRun> scheduled_runs(const ResolvedSweep& sweep, const Plan& plan) {
  std::vector<ScheduledRun> runs;
  for (std::size_t i = 0; i < sweep.runs.size(); ++i) {
    const ResolvedRun& resolved = sweep.runs[i];
    ScheduledRun run;
    run.id = resolved.id;
    run.name = cat(sweep.drafts[i].label, " seed ", sweep.drafts[i].seed);
    run.spec = resolved.spec.dump();
    run.init_file = resolved.init_file;
    run.teacher_file = resolved.teacher_file;
    run.total_steps = resolved.total_steps;
    run.global_batch = resolved.spec.at("training").at("global_batch").get<std::int64_t>();
    run.shape = shape_of(resolved.spec);
    run.estimate_s = plan.runs[i].seconds;
    for (const DraftParent& parent : sweep.drafts[i].parents) run.parents.push_back(parent.draft);
    runs.push_back(std::move(run));
  }
  return runs;
}

std::vector<std::string> take_up_folders(ResultStore& store, const ResolvedSweep& sweep,
                                         const Workspace& workspace) {
  std::vector<std::filesystem::path> folders;
  for (const ResolvedRun& run : sweep.runs) {
    const RunPaths paths(workspace.out, run.id);
    if (std::filesystem::exists(paths.directory)) folders.push_back(paths.directory);
  }
  return Ingester(store).ingest(folders).problems;
}

}  // namespace ablate
