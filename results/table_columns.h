#pragma once

#include <string>
#include <vector>

#include "results/sqlite.h"
#include "results/table_data.h"

namespace ablate {

/// Where the numbers of one table column come from.
struct TableColumn {
  enum class Source { Unknown, Metric, Time, Bench };
  ColumnData data;
  Source source = Source::Unknown;
  std::int64_t metric_id = 0;  ///< Metric
  bool times_ranks = false;    ///< Time: of all ranks together
  /// Bench: (value, protocol, spread) of the newest row of a structure; its hash is the parameter.
  std::string bench_sql;
};

/// Looks a column up by its name (see query_table).
TableColumn find_column(SQLite::Database& database, const std::string& name);

/// Names of columns that are not metrics.
std::vector<std::string> bench_column_names();
/// The same and what every run of ours declares: columns that are known before anything has run.
std::vector<std::string> usual_column_names();

}  // namespace ablate
