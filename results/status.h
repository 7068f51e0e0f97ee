#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "results/store.h"

namespace ablate {

/// One line of `ablate status`.
struct RunLine {
  std::string run_uid, label, dataset;
  std::uint64_t seed = 0;
  std::string state;
  int attempts = 0;
  std::string cause, detail;  ///< of the last attempt, when it has ended
  std::optional<std::int64_t> start_us, end_us, last_step;  ///< of the last attempt
};

/// "LABEL seed N", or the data set where no sweep gives a label.
std::string run_name(const RunLine& line);

/// Runs of a sweep in table order, seed by seed. Throws SpecError for an unknown sweep.
std::vector<RunLine> sweep_runs(ResultStore& store, const std::string& sweep);
/// The same for all runs that still have something to do ("holes") of one sweep.
std::vector<RunLine> sweep_holes(ResultStore& store, const std::string& sweep);

struct SweepLine {
  std::string name;
  std::int64_t created_us = 0;
  std::map<std::string, int> runs_by_state;
};
std::vector<SweepLine> list_sweeps(ResultStore& store);
/// The sweep of that name. Throws SpecError with the nearest one.
SweepLine find_sweep(ResultStore& store, const std::string& name);

struct AttemptInfo {
  int n = 0;  ///< 0 and below: bench jobs
  std::string outcome, cause, detail;
  std::optional<std::int64_t> first_step, last_step, start_us, end_us;
  std::optional<std::int64_t> world_size, threads;
  std::string hosts;  ///< of all ranks, each once
  /// What else is known of rank 0's machine, its software and its start: name and value.
  std::vector<std::pair<std::string, std::string>> environment;
};

struct EventInfo {
  int attempt = 0;
  int rank = 0;
  std::int64_t step = 0, t_us = 0;
  std::string kind, body_json;
};

struct FinalInfo {
  std::string metric, unit;
  std::optional<double> value;
  std::int64_t step = 0;
  std::string rule;  ///< "declared" when the run itself named the value
};

struct CheckpointInfo {
  std::int64_t step = 0, bytes = 0;
  std::string path, structure_hash;
  bool deployable = false;
};

/// Everything `ablate show` prints about one run.
struct RunDetail {
  RunLine run;
  std::string config_json;
  std::optional<std::int64_t> images_seen;
  std::vector<RegisteredRun::Method> methods;
  struct Relative {
    std::string role, run_uid, state;
    std::string weights_sha256;  ///< empty for children
  };
  std::vector<Relative> parents, children;
  std::vector<std::string> sweeps;
  std::vector<AttemptInfo> attempts;
  std::vector<EventInfo> events;
  std::vector<FinalInfo> finals;
  std::vector<CheckpointInfo> checkpoints;
};

/// `run_uid` in full (see ResultStore::find_run). Throws SpecError when unknown.
RunDetail describe_run(ResultStore& store, const std::string& run_uid);

}  // namespace ablate
