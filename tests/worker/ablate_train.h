#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/programs.h"

namespace ablate::test {

/// Runs the real program; on more than one rank under mpirun.
inline CapturedRun run_ablate_train(std::vector<std::string> arguments, int ranks = 1) {
  arguments.insert(arguments.begin(), program("ablate-train").string());
  if (ranks > 1) {
    const std::vector<std::string> launcher{"mpirun", "--oversubscribe",    "--bind-to", "none",
                                            "-n",     std::to_string(ranks)};
    arguments.insert(arguments.begin(), launcher.begin(), launcher.end());
  }
  ProcessOptions options;
  options.arguments = std::move(arguments);
  options.environment = {{"OMP_NUM_THREADS", "1"},
                         {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                         {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
                         {"OMPI_MCA_mpi_yield_when_idle", "1"}};
  return run_and_capture(options, {}, 120);
}

/// Standard output as JSON of a call that has to succeed.
inline nlohmann::json json_of_ablate_train(std::vector<std::string> arguments, int ranks = 1) {
  const CapturedRun run = run_ablate_train(std::move(arguments), ranks);
  EXPECT_EQ(run.status.code, 0) << run.errors;
  return nlohmann::json::parse(run.output, nullptr, /*allow_exceptions=*/false);
}

}  // namespace ablate::test
