#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/programs.h"
#include "tests/support/temp_folder.h"

namespace ablate::test {

inline const std::string kSweep = R"(name = "demo"
title = "A demo"
[run]
dataset = { name = "synthetic" }
model = { name = "fake", steps = 5 }
[[variant]]
label = "dense"
[[variant]]
label = "better"
from = "dense"
model = { top1 = 75 }
[seeds]
count = 2
[table]
columns = ["top1", "gmacs"]
)";

class Cli : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    return name;
  }
  CapturedRun run(std::vector<std::string> arguments) {
    return run_ablate(folder_.path(), std::move(arguments));
  }
  /// Runs the sweep above to its end.
  void sweep() {
    const CapturedRun done = run({"sweep", write("s.toml", kSweep)});
    ASSERT_EQ(done.status.code, 0) << done.errors;
  }

  TempFolder folder_;
};

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace ablate::test
