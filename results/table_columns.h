#pragma once

#include <string>
#include <vector>

#include "results/sqlite.h"
#include "results/table_data.h"

namespace ablate {

/// Where the numbers of one table column come from.
struct TableColumn {
  ColumnData data;
  bool known = false;  ///< a metric that has been logged, or a name of our own
  double scale = 1;
  /// One parameter, the sweep's id. Rows are (run_id, value) for metrics, (run_id, value, runs in
  /// its process) for Timing, (run_id, value, protocol, spread) for Bench.
  std::string sql;
};

/// Looks a column up by its name (see query_table).
TableColumn find_column(SQLite::Database& database, const std::string& name);

/// Names of columns that are not metrics.
std::vector<std::string> bench_column_names();

}  // namespace ablate
