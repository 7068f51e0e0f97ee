#include "sweeps/bench_jobs.h"

#include <algorithm>
#include <csignal>
#include <map>
#include <set>

#include "results/sqlite.h"
#include "results/status.h"
#include "results/table_columns.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/process.h"
#include "runner/core/run_paths.h"

namespace ablate {
namespace {

constexpr double kPollSeconds = 0.1;

std::string protocol_name(const BenchJob& job, const Launch& launch) {
  return cat(job.kind, "-", job.dtype, "-b", launch.bench_batch);
}

/// What a table wants to know about structures: kind of protocol -> with the largest batch too.
std::map<std::string, bool> wanted_kinds(ResultStore& store,
                                         const std::vector<std::string>& columns) {
  std::map<std::string, bool> kinds;
  for (const std::string& column : columns) {
    // A column that names its protocol is measured by hand.
    const bool named = column.find('@') != std::string::npos;
    const TableColumn found = find_column(store.database(), column);
    if (found.data.kind != ColumnKind::Bench || named) continue;
    const std::string kind = column.starts_with("train_") ? "train" : "infer";
    kinds[kind] = kinds[kind] || column.ends_with("max_batch");
  }
  return kinds;
}

/// Figures of a run hold for the arithmetic and the kind of device that it is trained with.
void choose_device(BenchJob& job, ResultStore& store, const Launch& launch) {
  const auto precision = query_text(store.database(),
                                    "SELECT json_extract(config_json, '$.training.precision') FROM "
                                    "variant JOIN run USING(variant_id) WHERE run_uid = ?",
                                    job.run_id);
  job.dtype = precision == "bf16" ? "bf16" : "fp32";
  job.device = job.dtype == "bf16" || launch.device == "cuda" ? "cuda" : "cpu";
}

bool is_measured(ResultStore& store, const std::string& structure_hash, const BenchJob& job,
                 const Launch& launch) {
  return query_integer(store.database(),
                       cat("SELECT 1 FROM bench WHERE structure_hash = ? AND protocol = ? AND "
                           "coalesce(device, 'cpu') = ?",
                           job.max_batch ? " AND max_batch IS NOT NULL" : "", " LIMIT 1"),
                       structure_hash, protocol_name(job, launch), job.device)
      .has_value();
}

std::string structure_hash_of(ResultStore& store, const std::string& run_id) {
  return query_text(store.database(), "SELECT structure_hash FROM run WHERE run_uid = ?", run_id)
      .value_or("");
}

/// The finished run of the baseline's row with the wanted seed, else with any; nullptr when none.
const RunLine* baseline_run(const std::vector<RunLine>& runs, const std::string& label,
                            std::uint64_t seed) {
  const RunLine* best = nullptr;
  for (const RunLine& run : runs) {
    if (run.label != label || run.state != "done") continue;
    if (best == nullptr || run.seed == seed) best = &run;
  }
  return best;
}

/// The next free place for a spool: jobs of a run count down from 0.
struct BenchPlace {
  int attempt = 0;
  std::filesystem::path folder;
};

BenchPlace next_place(const Workspace& workspace, const std::string& run_id) {
  for (int attempt = 0;; --attempt) {
    const auto folder = workspace.out / "bench" / run_id / cat("attempt-", -attempt);
    if (!std::filesystem::exists(folder)) return {attempt, folder};
  }
}

ProcessOptions bench_command(const BenchJob& job, const BenchPlace& place, const Launch& launch,
                             const Workspace& workspace) {
  ProcessOptions options;
  options.arguments = {workspace.require_train_program().string(),
                       "bench",
                       "--structure",
                       job.structure.string(),
                       "--protocol",
                       job.kind,
                       "--device",
                       job.device,
                       "--dtype",
                       job.dtype,
                       "--batch",
                       cat(launch.bench_batch),
                       "--threads",
                       cat(launch.threads),
                       "--budget-seconds",
                       cat(launch.bench_seconds),
                       "--out-spool",
                       (place.folder / "rank0.spool").string(),
                       "--run",
                       job.run_id,
                       "--attempt",
                       cat(place.attempt)};
  const auto add = [&](const char* option, const std::string& value) {
    options.arguments.push_back(option);
    options.arguments.push_back(value);
  };
  if (!job.against.empty()) add("--against", job.against.string());
  if (job.max_batch && job.device == "cuda") {
    options.arguments.push_back("--max-batch");
  } else if (job.max_batch) {
    add("--memory-budget-mib", cat(launch.bench_memory_mib));
  }
  options.environment = {{"OMP_NUM_THREADS", cat(launch.threads)}};
  options.output_file = place.folder / "log.txt";
  options.error_file = options.output_file;
  options.die_with_parent = true;
  return options;
}

/// Empty when it went well.
std::string run_job(const BenchJob& job, const Launch& launch, const Workspace& workspace,
                    Ingester& ingester, StopSignal& stop) {
  const BenchPlace place = next_place(workspace, job.run_id);
  make_directories(place.folder);
  ChildProcess child(bench_command(job, place, launch, workspace));
  while (!child.wait_for(kPollSeconds)) {
    if (!stop.requested()) continue;
    child.signal_group(SIGKILL);
    child.wait();
    return "stopped";
  }
  if (!child.wait().success()) {
    return cat(child.wait().str(), "; see ", (place.folder / "log.txt").string());
  }
  const IngestReport report = ingester.ingest({place.folder});
  return join(report.problems, "; ");
}

}  // namespace

std::vector<BenchJob> missing_bench_jobs(ResultStore& store, const std::string& sweep,
                                         const std::vector<std::string>& columns,
                                         const std::string& baseline, const Launch& launch,
                                         const Workspace& workspace) {
  const auto kinds = wanted_kinds(store, columns);
  if (kinds.empty()) return {};
  const std::vector<RunLine> runs = sweep_runs(store, sweep);
  const std::string label = baseline.empty() && !runs.empty() ? runs[0].label : baseline;
  std::vector<BenchJob> jobs;
  std::set<std::pair<std::string, std::string>> seen;
  for (const RunLine& run : runs) {
    const std::string hash = structure_hash_of(store, run.run_uid);
    const RunPaths paths(workspace.out, run.run_uid);
    if (run.state != "done" || hash.empty() || !std::filesystem::exists(paths.final_structure())) {
      continue;
    }
    for (const auto& [kind, max_batch] : kinds) {
      BenchJob job{.run_id = run.run_uid,
                   .name = run_name(run),
                   .structure = paths.final_structure(),
                   .kind = kind,
                   .max_batch = max_batch};
      choose_device(job, store, launch);
      if (is_measured(store, hash, job, launch)) continue;
      if (!seen.emplace(hash, protocol_name(job, launch)).second) continue;
      const RunLine* base = baseline_run(runs, label, run.seed);
      if (base != nullptr && structure_hash_of(store, base->run_uid) != hash) {
        job.against = RunPaths(workspace.out, base->run_uid).final_structure();
      }
      jobs.push_back(std::move(job));
    }
  }
  return jobs;
}

std::vector<std::string> run_bench_jobs(const std::vector<BenchJob>& jobs, const Launch& launch,
                                        const Workspace& workspace, Ingester& ingester,
                                        ProgressView& view, StopSignal& stop) {
  std::vector<std::string> problems;
  for (const BenchJob& job : jobs) {
    if (stop.requested()) break;
    const std::string name = cat(job.name, ", ", protocol_name(job, launch));
    view.note(cat("measure  ", name));
    const std::string problem = run_job(job, launch, workspace, ingester, stop);
    if (!problem.empty()) problems.push_back(cat("measuring ", name, ": ", problem));
  }
  return problems;
}

}  // namespace ablate
