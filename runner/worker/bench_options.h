#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runner/measure/protocol.h"
#include "runner/measure/throughput.h"
#include "runner/worker/model_options.h"

namespace ablate {

/// What `ablate-train bench` was asked to measure.
struct BenchOptions {
  std::filesystem::path structure, against, out_spool, profile;
  ModelOptions model;
  std::vector<std::string> data;
  std::string kind = "infer", dtype = "fp32", device = "cpu", wire = "fp32";
  std::string run_uid, against_methods;
  std::int64_t batch = 128, memory_budget_mib = 0;
  int threads = 1, attempt = 0;
  bool largest_batch = false, ideal = false, plain_attention = false;
  bool class_token_block = false;
  TimingOptions timing;

  Protocol protocol() const {
    return {.kind = kind == "train" ? BenchKind::Train : BenchKind::Infer,
            .dtype = dtype,
            .batch = batch,
            .device = device,
            .threads = threads,
            .wire = wire};
  }
  bool on_device() const { return device != "cpu"; }
  bool compares() const { return !against.empty() || !against_methods.empty(); }
};

void add_bench_options(CLI::App& app, BenchOptions& options);
/// Throws SpecError for what does not go together.
void check_options(const BenchOptions& options);

Structure measured_structure(const BenchOptions& options);
/// Where options.compares().
Structure baseline_structure(const BenchOptions& options);

/// LibTorch's process-wide settings for these measurements.
void set_switches(const BenchOptions& options);

}  // namespace ablate
