#include "tests/end_to_end/sweep_results.h"

#include <cstdio>
#include <set>

#include <gtest/gtest.h>

#include "results/curve.h"
#include "results/query.h"
#include "results/sqlite.h"
#include "results/store.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/run_paths.h"
#include "runner/core/text.h"

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

/// A number without rounding.
std::string exact(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%a", value);
  return text;
}

std::string final_lines(SQLite::Database& db, const std::string& run) {
  auto rows = prepare(db,
                      "SELECT name, step, value FROM final JOIN metric USING(metric_id) JOIN run "
                      "USING(run_id) WHERE run_uid = ? AND kind = 'deterministic' ORDER BY name",
                      run);
  std::string lines;
  while (rows.executeStep()) {
    lines += cat("final ", rows.getColumn(0).getString(), " ", rows.getColumn(1).getInt64(), " ",
                 exact(rows.getColumn(2).getDouble()), "\n");
  }
  return lines;
}

std::string bit_lines(SQLite::Database& db, const std::string& run) {
  auto rows = prepare(db,
                      "SELECT kind, step, n, bits FROM sample_bits JOIN run USING(run_id) WHERE "
                      "run_uid = ? ORDER BY kind, step",
                      run);
  std::string lines;
  while (rows.executeStep()) {
    const SQLite::Column bits = rows.getColumn(3);
    lines += cat("bits ", rows.getColumn(0).getString(), " ", rows.getColumn(1).getInt64(), " ",
                 rows.getColumn(2).getInt64(), " ",
                 hash128_hex(std::string(static_cast<const char*>(bits.getBlob()),
                                         static_cast<std::size_t>(bits.getBytes()))),
                 "\n");
  }
  return lines;
}

std::string point_lines(ResultStore& store, const std::string& run) {
  std::string lines;
  for (const SeriesInfo& series : list_series(store, run)) {
    const auto kind =
        query_text(store.database(), "SELECT kind FROM metric WHERE name = ?", series.metric);
    if (kind != "deterministic") continue;
    for (const CurvePoint& point : read_curve(store, run, series.metric, series.rank)) {
      lines += cat(series.metric, " ", point.step, " ", exact(point.value), "\n");
    }
  }
  return lines;
}

std::string bytes_or_nothing(const fs::path& file) {
  return fs::exists(file) ? read_file(file) : std::string();
}

/// One column of a query, a line each.
std::string lines_of(SQLite::Database& db, const std::string& sql) {
  SQLite::Statement rows(db, sql);
  std::string lines;
  while (rows.executeStep()) lines += rows.getColumn(0).getString() + "\n";
  return lines;
}

/// Stored points of a series against its different steps.
void expect_points_once(ResultStore& store) {
  auto rows = prepare(store.database(),
                      "SELECT run_uid, name, rank, (SELECT count(*) FROM sample s WHERE "
                      "s.series_id = series.series_id) + (SELECT coalesce(sum(n), 0) FROM chunk c "
                      "WHERE c.series_id = series.series_id) FROM series JOIN run USING(run_id) "
                      "JOIN metric USING(metric_id)");
  std::size_t series = 0;
  for (; rows.executeStep(); ++series) {
    const std::string run = rows.getColumn(0).getString();
    const std::string metric = rows.getColumn(1).getString();
    std::set<std::int64_t> steps;
    for (const CurvePoint& point : read_curve(store, run, metric, rows.getColumn(2).getInt())) {
      steps.insert(point.step);
    }
    EXPECT_EQ(rows.getColumn(3).getInt64(), static_cast<std::int64_t>(steps.size()))
        << run << " " << metric;
  }
  EXPECT_GT(series, 0U);
}

}  // namespace

std::map<std::string, RunResult> read_results(const fs::path& out, const fs::path& database) {
  ResultStore store(database.empty() ? out / "results.db" : database, ResultStore::Mode::ReadOnly);
  std::map<std::string, RunResult> results;
  SQLite::Statement rows(store.database(), "SELECT run_uid, state FROM run");
  while (rows.executeStep()) {
    const std::string run = rows.getColumn(0).getString();
    const RunPaths paths(out, run);
    results[run] = {rows.getColumn(1).getString(),
                    final_lines(store.database(), run) + bit_lines(store.database(), run) +
                        point_lines(store, run),
                    bytes_or_nothing(paths.final_weights()) +
                        bytes_or_nothing(paths.final_directory() / "ema.safetensors"),
                    bytes_or_nothing(paths.final_structure())};
  }
  return results;
}

void expect_equal_results(const std::map<std::string, RunResult>& expected,
                          const std::map<std::string, RunResult>& got) {
  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(got.size(), expected.size());
  for (const auto& [run, result] : expected) {
    const auto found = got.find(run);
    if (found == got.end()) {
      ADD_FAILURE() << "run " << run << " is missing";
      continue;
    }
    EXPECT_EQ(result.state, "done") << run;
    EXPECT_EQ(found->second.state, "done") << run;
    EXPECT_FALSE(result.numbers.empty() || result.weights.empty()) << run;
    EXPECT_EQ(found->second.numbers, result.numbers) << run;
    EXPECT_TRUE(found->second.weights == result.weights) << "weights of run " << run;
    EXPECT_EQ(found->second.structure, result.structure) << run;
  }
}

void expect_sound_records(const fs::path& out) {
  ResultStore store(out / "results.db", ResultStore::Mode::ReadOnly);
  SQLite::Database& db = store.database();
  EXPECT_EQ(query_text(db, "PRAGMA integrity_check"), "ok");
  EXPECT_NO_THROW(store.check(/*thorough=*/true));
  expect_points_once(store);
  std::set<std::string> folders, runs;
  for (const auto& entry : fs::directory_iterator(out / "runs")) {
    folders.insert(entry.path().filename());
  }
  SQLite::Statement names(db, "SELECT run_uid FROM run");
  while (names.executeStep()) runs.insert(names.getColumn(0).getString());
  EXPECT_EQ(folders, runs);
  EXPECT_EQ(lines_of(db,
                     "SELECT run_id FROM attempt GROUP BY run_id "
                     "HAVING min(n) <> 1 OR max(n) <> count(*)"),
            "")
      << "attempts are numbered from 1 without gaps";
  EXPECT_EQ(lines_of(db,
                     "SELECT run_id FROM attempt a GROUP BY run_id HAVING "
                     "sum(outcome IS 'done') <> 1 OR sum(outcome IS NULL) > 0 OR NOT "
                     "max(n) = max(CASE WHEN outcome = 'done' THEN n END)"),
            "")
      << "every attempt has an outcome, and the last one alone is done";
}

}  // namespace ablate::test
