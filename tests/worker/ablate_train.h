#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/programs.h"

namespace ablate::test {

/// Runs the real program.
inline CapturedRun run_ablate_train(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), program("ablate-train").string());
  ProcessOptions options;
  options.arguments = std::move(arguments);
  options.environment = {{"OMP_NUM_THREADS", "1"}};
  return run_and_capture(options, {}, 120);
}

/// Standard output as JSON of a call that has to succeed.
inline nlohmann::json json_of_ablate_train(std::vector<std::string> arguments) {
  const CapturedRun run = run_ablate_train(std::move(arguments));
  EXPECT_EQ(run.status.code, 0) << run.errors;
  return nlohmann::json::parse(run.output, nullptr, /*allow_exceptions=*/false);
}

}  // namespace ablate::test
