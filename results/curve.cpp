#include "results/curve.h"

#include <algorithm>
#include <cmath>

#include "results/number_format.h"
#include "results/series_store.h"
#include "results/sqlite.h"
#include "runner/core/error.h"

namespace ablate {
std::vector<CurvePoint> read_curve(ResultStore& store, const std::string& run_uid,
                                   const std::string& metric, int rank) {
  return with_database_errors(store.file(), [&]() -> std::vector<CurvePoint> {
    const auto series = query_integer(store.database(),
                                      "SELECT series_id FROM series JOIN run USING(run_id) "
                                      "JOIN metric USING(metric_id) "
                                      "WHERE run_uid = ? AND name = ? AND rank = ?",
                                      run_uid, metric, rank);
    if (!series) return {};
    return SeriesStore(store.database()).read(*series);
  });
}

std::vector<SeriesInfo> list_series(ResultStore& store, const std::string& run_uid) {
  return with_database_errors(store.file(), [&] {
    auto rows = prepare(store.database(),
                        "SELECT name, unit, rank, "
                        "(SELECT count(*) FROM sample p WHERE p.series_id = s.series_id) + "
                        "(SELECT coalesce(sum(n), 0) FROM chunk c WHERE c.series_id = s.series_id) "
                        "FROM series s JOIN run USING(run_id) JOIN metric USING(metric_id) "
                        "WHERE run_uid = ? ORDER BY name, rank",
                        run_uid);
    std::vector<SeriesInfo> list;
    while (rows.executeStep()) {
      list.push_back({rows.getColumn(0).getString(), rows.getColumn(1).getString(),
                      rows.getColumn(2).getInt(), rows.getColumn(3).getInt64()});
    }
    return list;
  });
}

void export_csv(ResultStore& store, const std::string& run_uid,
                const std::vector<std::string>& metrics, std::ostream& out) {
  const std::vector<SeriesInfo> known = list_series(store, run_uid);
  std::vector<std::string> names;
  for (const SeriesInfo& series : known) names.push_back(series.metric);
  for (const std::string& metric : metrics) {
    if (std::find(names.begin(), names.end(), metric) == names.end()) {
      throw SpecError(
          cat("run ", run_uid, " has no metric \"", metric, "\"", suggestion(metric, names)));
    }
  }
  out << "metric,rank,step,value\n";
  for (const SeriesInfo& series : known) {
    const bool wanted = metrics.empty() ||
                        std::find(metrics.begin(), metrics.end(), series.metric) != metrics.end();
    if (!wanted) continue;
    for (const CurvePoint& point : read_curve(store, run_uid, series.metric, series.rank)) {
      out << series.metric << ',' << series.rank << ',' << point.step << ','
          << (std::isnan(point.value) ? "" : full_precision(point.value)) << '\n';
    }
  }
}

}  // namespace ablate
