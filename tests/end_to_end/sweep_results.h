#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace ablate::test {

/// What a run left that may depend on nothing but its spec.
struct RunResult {
  std::string state;
  std::string
      numbers;  ///< deterministic finals, points and per-image bits, bit for bit, a line each
  std::string weights;    ///< bytes of the final weights, and of their average if there is one
  std::string structure;  ///< bytes of final/structure.json
};

/// The results of every run that `out/results.db` (or another database) knows, by run id.
std::map<std::string, RunResult> read_results(const std::filesystem::path& out,
                                              const std::filesystem::path& database = {});

/// Expects the same runs, all done, with the same bits.
void expect_equal_results(const std::map<std::string, RunResult>& expected,
                          const std::map<std::string, RunResult>& got);

/// Expects `PRAGMA integrity_check` and the foreign keys in order, each point of a series once, as
/// many run folders as runs, and attempts numbered from 1 of which the last alone is done.
void expect_sound_records(const std::filesystem::path& out);

}  // namespace ablate::test
