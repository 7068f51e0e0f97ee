#include "results/projection.h"

#include <cmath>

#include "runner/core/error.h"

namespace ablate {
namespace {

FinalRule rule_of(std::string_view name) {
  for (const FinalRule rule : {FinalRule::Last, FinalRule::Max, FinalRule::Min})
    if (name == name_of(rule)) return rule;
  return FinalRule::MeanLastK;
}

std::optional<CurvePoint> declared(SQLite::Database& db, std::int64_t run, std::int64_t metric) {
  auto row = prepare(
      db, "SELECT step, value FROM declared_final WHERE run_id = ? AND metric_id = ?", run, metric);
  if (!row.executeStep()) return std::nullopt;
  return CurvePoint{row.getColumn(0).getInt64(),
                    number_or_null(row.getColumn(1)).value_or(std::nan(""))};
}

std::optional<CurvePoint> by_rule(SQLite::Database& db, SeriesStore& series, std::int64_t run,
                                  std::int64_t metric) {
  auto row = prepare(db,
                     "SELECT series_id, final_rule FROM series JOIN metric USING(metric_id) "
                     "WHERE run_id = ? AND metric_id = ? AND rank = -1",
                     run, metric);
  if (!row.executeStep()) return std::nullopt;
  return series.final_point(row.getColumn(0).getInt64(), rule_of(row.getColumn(1).getString()));
}

}  // namespace

void project_final(SQLite::Database& db, SeriesStore& series, std::int64_t run,
                   std::int64_t metric) {
  std::optional<CurvePoint> point = declared(db, run, metric);
  if (!point) point = by_rule(db, series, run, metric);
  if (point) {
    execute(db, "INSERT OR REPLACE INTO final(run_id, metric_id, value, step) VALUES (?, ?, ?, ?)",
            run, metric, point->value, point->step);
  } else {
    execute(db, "DELETE FROM final WHERE run_id = ? AND metric_id = ?", run, metric);
  }
}

void seal_run(SQLite::Database& db, SeriesStore& series, std::int64_t run) {
  auto rows = prepare(db, "SELECT series_id FROM series WHERE run_id = ?", run);
  while (rows.executeStep()) series.seal(rows.getColumn(0).getInt64());
}

bool is_terminal(std::string_view state) { return state == "done" || state == "diverged"; }

ReindexReport reindex(ResultStore& store) {
  return with_database_errors(store.file(), [&] {
    SQLite::Database& db = store.database();
    SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
    SeriesStore series(db);
    ReindexReport report;
    db.exec("DELETE FROM final");
    SQLite::Statement pairs(db,
                            "SELECT run_id, metric_id FROM series WHERE rank = -1 "
                            "UNION SELECT run_id, metric_id FROM declared_final ORDER BY 1, 2");
    while (pairs.executeStep()) {
      project_final(db, series, pairs.getColumn(0).getInt64(), pairs.getColumn(1).getInt64());
      ++report.series;
    }
    SQLite::Statement runs(db, "SELECT run_id, state FROM run");
    while (runs.executeStep()) {
      if (!is_terminal(runs.getColumn(1).getString())) continue;
      seal_run(db, series, runs.getColumn(0).getInt64());
      ++report.sealed_runs;
    }
    report.finals = query_integer(db, "SELECT count(*) FROM final").value_or(0);
    transaction.commit();
    return report;
  });
}

}  // namespace ablate
