#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "results/curve.h"
#include "results/ingest.h"
#include "results/spool_frame.h"
#include "results/sqlite.h"
#include "results/store.h"
#include "runner/core/hash.h"
#include "runner/core/text.h"
#include "tests/support/temp_folder.h"

namespace ablate::test {

inline RegisteredRun make_run(const std::string& uid, const std::string& config = "c",
                              std::uint64_t seed = 0) {
  RegisteredRun run;
  run.run_uid = uid;
  run.config_hash = config;
  run.config_json = R"({"model": {"name": "vit", "params": {"depth": 12}},
    "methods": [{"name": "tome", "params": {"r": 4}}], "training": {"epochs": 3},
    "config": ")" + config +
                    "\"}";
  run.dataset = "synthetic";
  run.split = "all";
  run.seed = seed;
  run.label = "row " + config;
  run.images_seen = 1000;
  return run;
}

/// A database with runs, in its own folder unless a file is named.
struct Database {
  explicit Database(const std::vector<std::string>& runs = {"r"}) : store(folder / "own.db") {
    add(runs);
  }
  explicit Database(const std::filesystem::path& file, const std::vector<std::string>& runs = {"r"})
      : store(file) {
    add(runs);
  }
  void add(const std::vector<std::string>& runs) {
    std::uint64_t seed = 0;
    for (const std::string& uid : runs)
      store.register_runs(std::vector{make_run(uid, "c", seed++)});
  }
  TempFolder folder;
  ResultStore store;
};

/// The bytes of a spool file, without a writer's thread.
class SpoolBytes {
 public:
  explicit SpoolBytes(const std::string& run, int attempt = 1, std::int64_t first_step = 0,
                      int rank = 0) {
    SpoolHeader header;
    header.spool_uid = cat(run, "-", attempt, "-", rank);
    header.run_uid = run;
    header.attempt = attempt;
    header.rank = rank;
    header.first_step = first_step;
    header.start_us = 1'000'000L * (attempt + 10);
    add(header);
    path = cat(run, ".a", attempt, ".r", rank, ".spool");
  }

  SpoolBytes& add(const Record& record) {
    append_frame(bytes, sequence_++, encode(record));
    ends.push_back(bytes.size());
    return *this;
  }
  SpoolBytes& metric(std::uint32_t id, const std::string& name, FinalRule rule = FinalRule::Last,
                     bool per_rank = false) {
    return add(MetricDef{id, name, "u", Better::Higher, MetricKind::Deterministic, rule, per_rank});
  }
  /// Points of `metric` at [first, end) with value scale * step.
  SpoolBytes& points(std::uint32_t metric, std::int64_t first, std::int64_t end, double scale) {
    Points points;
    for (std::int64_t step = first; step < end; ++step)
      points.points.push_back({metric, step, scale * static_cast<double>(step)});
    return add(points);
  }
  SpoolBytes& outcome(OutcomeState state, std::int64_t last_step = 0) {
    Outcome outcome;
    outcome.state = state;
    outcome.cause = state == OutcomeState::Done ? "finished" : "preempted";
    outcome.last_step = last_step;
    outcome.end_us = 99'000'000;
    return add(outcome).add(Seal{});
  }
  std::filesystem::path write(const std::filesystem::path& folder) const {
    std::ofstream(folder / path, std::ios::binary) << bytes;
    return folder / path;
  }

  std::string bytes, path;
  std::vector<std::size_t> ends;

 private:
  std::uint32_t sequence_ = 0;
};

/// Every row of a query as text: what two databases are compared by.
inline std::string rows_of(ResultStore& store, const std::string& sql) {
  SQLite::Statement statement(store.database(), sql);
  std::string text;
  while (statement.executeStep()) {
    for (int i = 0; i < statement.getColumnCount(); ++i) {
      const SQLite::Column column = statement.getColumn(i);
      text += column.isNull() ? "NULL" : column.getString();
      text += '|';
    }
    text += '\n';
  }
  return text;
}

/// Everything a spool can bring, without the ids that depend on the order of arrival.
inline std::string content_of(ResultStore& store) {
  std::string text =
      rows_of(store, "SELECT run_uid, state, seed, images_seen FROM run ORDER BY 1") +
      rows_of(store,
              "SELECT run_uid, n, first_step, last_step, outcome, cause, world_size, start_us "
              "FROM attempt JOIN run USING(run_id) ORDER BY 1, 2") +
      rows_of(store,
              "SELECT run_uid, n, rank, seq, event.step, kind, body_json FROM event "
              "JOIN attempt USING(attempt_id) JOIN run USING(run_id) ORDER BY 1, 2, 3, 4") +
      rows_of(store,
              "SELECT run_uid, name, value, step FROM final JOIN run USING(run_id) "
              "JOIN metric USING(metric_id) ORDER BY 1, 2") +
      rows_of(store,
              "SELECT run_uid, step, path FROM checkpoint JOIN run USING(run_id) "
              "ORDER BY 1, 2") +
      rows_of(store,
              "SELECT run_uid, kind, step, n, hex(bits) FROM sample_bits "
              "JOIN run USING(run_id) ORDER BY 1, 2, 3") +
      rows_of(store, "SELECT spool_uid, bytes_done, last_crc, sealed FROM spool ORDER BY 1");
  SQLite::Statement series(store.database(),
                           "SELECT run_uid, name, rank FROM series JOIN run USING(run_id) "
                           "JOIN metric USING(metric_id) ORDER BY 1, 2, 3");
  while (series.executeStep()) {
    const std::string run = series.getColumn(0).getString();
    const std::string name = series.getColumn(1).getString();
    const int rank = series.getColumn(2).getInt();
    std::string points;
    for (const CurvePoint& point : read_curve(store, run, name, rank))
      points += cat(point.step, "=", point.value, " ");
    text += cat(run, " ", name, " ", rank, " ", hash128_hex(points), "\n");
  }
  return text;
}

/// Points in the database, each stored row counted: equals the number of distinct (run, metric,
/// rank, step) when none is held twice.
inline std::int64_t stored_points(ResultStore& store) {
  return *query_integer(store.database(),
                        "SELECT (SELECT count(*) FROM sample) + "
                        "(SELECT coalesce(sum(n), 0) FROM chunk)");
}

}  // namespace ablate::test
