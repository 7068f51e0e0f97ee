#pragma once

#include <string>
#include <vector>

#include "results/sqlite.h"

namespace ablate {

/// What is missing from the numbers of a run that has ended for good: an attempt that goes on from
/// a checkpoint relies on the numbers before it, which the earlier attempt made durable first.
/// Without any at the step before, the spool of that attempt was cut. A line a gap, for people;
/// empty while spools may still come.
std::vector<std::string> missing_steps(SQLite::Database& database, const std::string& run_uid);

}  // namespace ablate
