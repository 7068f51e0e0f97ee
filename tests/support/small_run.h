#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "methods/models/safetensors.h"
#include "results/spool_reader.h"
#include "runner/core/run_paths.h"
#include "runner/core/value.h"
#include "runner/train/run.h"
#include "runner/train/spec_resolver.h"
#include "tests/support/run_ranks.h"

namespace ablate::test {

/// What a run left behind: the deterministic numbers of rank 0 by name and step, the numbers it
/// declared final, its finalized weights by name, and how it ended.
struct RunRecord {
  std::map<std::string, std::map<std::int64_t, double>> series;
  std::map<std::string, double> finals;
  std::map<std::string, at::Tensor> weights;
  nlohmann::json structure;
};

/// Resolves the TOML text of a run table.
inline RunSpec resolve_small(const std::string& toml, int ranks = 1) {
  return resolve_run(parse_toml(toml, "test"), {}, {}, ranks).spec;
}

/// The first attempt of a run whose files go below `out`.
inline Environment environment_in(const std::filesystem::path& out,
                                  const std::string& device = "cpu") {
  Environment environment;
  environment.out = out;
  environment.device = device;
  return environment;
}

/// Plays every rank of one attempt as a thread of this process.
inline Outcome run_attempt(const RunSpec& spec, const Environment& environment, int ranks = 1,
                           bool stop_at_once = false) {
  Outcome outcome;
  run_ranks(ranks, [&](Communicator& world) {
    StopSignal stop;
    if (stop_at_once) stop.request("test");
    const Outcome mine = execute_run(spec, environment, world, stop);
    if (world.rank() == 0) outcome = mine;
  });
  return outcome;
}

/// Adds one attempt's numbers; a later attempt replaces those at its steps.
inline void read_numbers(const std::filesystem::path& spool, RunRecord& record) {
  std::map<std::uint32_t, MetricDef> metrics;
  SpoolReader reader(spool);
  while (const auto frame = reader.next()) {
    if (const auto* def = std::get_if<MetricDef>(&frame->record)) metrics[def->id] = *def;
    if (const auto* points = std::get_if<Points>(&frame->record)) {
      for (const Point& point : points->points) {
        const MetricDef& def = metrics.at(point.metric);
        if (def.kind == MetricKind::Deterministic)
          record.series[def.name][point.step] = point.value;
      }
    }
    if (const auto* value = std::get_if<FinalValue>(&frame->record)) {
      record.finals[metrics.at(value->metric).name] = value->value;
    }
  }
}

/// The record of a finished run of so many attempts.
inline RunRecord read_run(const RunSpec& spec, const Environment& environment, int attempts = 1) {
  const RunPaths paths(environment.out, spec.id());
  RunRecord record;
  for (int n = 1; n <= attempts; ++n) read_numbers(paths.spool(n, 0), record);
  const SafetensorsFile file(paths.final_weights());
  for (const std::string& name : file.names()) record.weights[name] = file.tensor(name);
  record.structure = nlohmann::json::parse(std::ifstream(paths.final_structure()));
  return record;
}

/// Runs once, without interruption, in a folder of its own.
inline RunRecord run_small(const RunSpec& spec, const std::filesystem::path& out, int ranks = 1,
                           std::int64_t micro_batch = 0) {
  Environment environment = environment_in(out);
  environment.micro_batch = micro_batch;
  const Outcome outcome = run_attempt(spec, environment, ranks);
  ABLATE_CHECK(outcome.state == OutcomeState::Done, outcome.detail);
  return read_run(spec, environment);
}

}  // namespace ablate::test
