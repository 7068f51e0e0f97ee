#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "runner/core/drill_fault.h"
#include "runner/train/spec_resolver.h"

namespace ablate {

/// Facts of an attempt: how and where a run is computed. Nothing here may change a result (thread,
/// rank and micro-batch counts change it within rounding, and are recorded).
struct Environment {
  std::filesystem::path out = "out";
  DataRoots data{};
  // Weights whose SHA-256 stands in the spec.
  std::filesystem::path init_file{};     ///< to start from
  std::filesystem::path teacher_file{};  ///< to learn from
  int attempt = 1;
  std::int64_t fence = 1;  ///< checkpoints are renamed into place only while this is current
  int threads = 1;         ///< of a rank's tensor operations
  int loader_threads = 1;
  std::int64_t micro_batch = 0;  ///< 0: the rank's whole slice of the global batch
  std::string device = "auto";   ///< "cpu", "cuda" or "auto": CUDA where the run can use it
  bool nccl_nvls = false;        ///< NCCL may reduce in NVLink switches
  double nccl_timeout = 120;  ///< seconds after which a step on several devices counts as hanging
  int runs_in_process = 1;    ///< computed at once, this one included
  double checkpoint_seconds = 300;
  std::int64_t checkpoint_steps = 0;  ///< additionally every so many steps; 0: by time alone
  int keep_checkpoints = 2;
  std::filesystem::path stop_file{};  ///< empty: the run's own
  std::filesystem::path profile{};    ///< Chrome trace of a few steps; empty: none
  double deadline_seconds = 0;        ///< from the start of the process; 0: none
  std::optional<DrillFault> fault{};  ///< planned by a drill
};

}  // namespace ablate
