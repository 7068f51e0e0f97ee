#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "results/store.h"

namespace ablate {

struct MergeReport {
  std::int64_t new_runs = 0;       ///< not known here before
  std::int64_t replaced_runs = 0;  ///< known here, but further along there
  std::int64_t kept_runs = 0;      ///< known here and at least as far along
  std::vector<std::string> problems;
};

/// Takes over everything from another machine's database (`ablate merge`), matched by names and
/// identities, never by row numbers. A run is taken whole from the database where it is further
/// along: done before diverged, skipped or failed before interrupted, running, ready, planned; then
/// the one with more attempts; on a tie the one here stays. So merging again changes nothing.
/// `source` is only read; it must have the current schema. Throws SpecError when the two
/// know different data under one data set name, and Error when a database fails.
MergeReport merge_database(ResultStore& store, const std::filesystem::path& source);

}  // namespace ablate
