#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "runner/core/process.h"
#include "runner/core/run_paths.h"

namespace ablate {

/// runs/<id>/job.json: who works on a run, so that a later `ablate` can adopt or end what its
/// predecessor left.
struct JobRecord {
  int attempt = 0;
  nlohmann::json handle;  ///< Job::handle()
  // For those who look on; 0: unknown.
  std::int64_t total_steps = 0, global_batch = 0;
};

void write_job_record(const RunPaths& paths, const JobRecord& record);
/// Nothing when there is no record, or none that can be understood.
std::optional<JobRecord> read_job_record(const RunPaths& paths);
void remove_job_record(const RunPaths& paths);

/// Ends every process of this machine that works on the run: those whose command line names its
/// spec. Covers a job that was started just before its `ablate` was killed. Returns how many.
int end_leftovers(const RunPaths& paths);

}  // namespace ablate
