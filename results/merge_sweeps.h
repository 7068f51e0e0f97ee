#pragma once

namespace SQLite {
class Database;
}

namespace ablate {

/// The part of a merge that takes over sweeps, their rows and their lists of runs: from schema
/// `src` into `main`, when runs and variants are there and table temp.plan says which run is which.
void merge_sweeps(SQLite::Database& database);

}  // namespace ablate
