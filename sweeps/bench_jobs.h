#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "results/ingest.h"
#include "results/store.h"
#include "runner/core/stop.h"
#include "sweeps/launch.h"
#include "sweeps/progress.h"
#include "sweeps/workspace.h"

namespace ablate {

/// One measurement of a structure, alone on the machine, in turns with the baseline's.
struct BenchJob {
  std::string run_id;  ///< a run with that structure
  std::string name;    ///< of that run, for people
  std::filesystem::path structure;
  std::filesystem::path against{};  ///< structure of the baseline; empty for the baseline itself
  std::string kind;                 ///< "infer" or "train"
  std::string device{};             ///< "cpu", or "cuda" where its runs have trained
  std::string dtype{};              ///< "fp32", or "bf16" when the runs are
  bool max_batch = false;           ///< also the largest batch within the memory budget
};

/// What the columns of a table need that the database does not have yet: a job for every structure
/// of the sweep's finished runs (all seeds that share one share its figures) and every kind of
/// protocol. Runs in bf16 and those of a sweep for CUDA devices are measured on one. The baseline
/// is the finished run of the row `baseline` (empty: the first row) with the same seed, or any
/// seed.
std::vector<BenchJob> missing_bench_jobs(ResultStore& store, const std::string& sweep,
                                         const std::vector<std::string>& columns,
                                         const std::string& baseline, const Launch& launch,
                                         const Workspace& workspace);

/// Runs the jobs one after the other; nothing else of ours may run meanwhile. Returns a line for
/// every job that failed. Ends early when a stop is requested.
std::vector<std::string> run_bench_jobs(const std::vector<BenchJob>& jobs, const Launch& launch,
                                        const Workspace& workspace, Ingester& ingester,
                                        ProgressView& view, StopSignal& stop);

}  // namespace ablate
