#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "results/store.h"

namespace ablate {

/// A run as the database knows it, with its last attempt.
struct RunState {
  std::string state;  ///< planned, ready, running, interrupted, done, diverged, failed, skipped
  int attempts = 0;
  std::string cause, detail;  ///< of the last attempt; empty while it runs
  std::int64_t started_us = 0;
};

/// The states of the given runs by id; runs the database does not know are missing.
std::map<std::string, RunState> run_states(ResultStore& store,
                                           const std::vector<std::string>& run_ids);

/// Microseconds since 1970.
std::int64_t now_microseconds();

}  // namespace ablate
