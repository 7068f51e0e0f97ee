#include "results/table_columns.h"

#include <array>

#include "runner/core/text.h"

namespace ablate {
namespace {

struct BenchFigure {
  std::string_view name, sql, unit;
  Better better;
};
constexpr std::array<BenchFigure, 5> kFigures = {{
    {"images_per_s", "images_per_s", "1/s", Better::Higher},
    {"p50_ms", "p50_ms", "ms", Better::Lower},
    {"p99_ms", "p99_ms", "ms", Better::Lower},
    {"peak_mem_mib", "peak_bytes / 1048576.0", "MiB", Better::Lower},
    {"joules_per_image", "joules_per_image", "J", Better::Lower},
}};

constexpr std::array<std::string_view, 5> kCounts = {"params", "params_m", "macs", "gmacs",
                                                     "tokens_final"};

struct WallTime {
  std::string_view name, factor;
};
constexpr std::array<WallTime, 2> kTimes = {{{"wall_h", "1"}, {"gpu_hours", "world_size"}}};

// "test" unless the name says otherwise: "holdout/top1", "train/loss", "eval/top1".
std::string split_of(const std::string& metric) {
  for (const char* split : {"holdout", "train"})
    if (metric.starts_with(split)) return split;
  return "test";
}

Better better_of(int value) { return static_cast<Better>(value); }

bool find_metric(SQLite::Database& db, TableColumn& column) {
  ColumnData& data = column.data;
  auto row = prepare(
      db,
      "SELECT metric_id, coalesce(unit, ''), better, kind, final_rule FROM metric WHERE name = ?",
      data.name);
  if (!row.executeStep()) return false;
  data.unit = row.getColumn(1).getString();
  data.better = better_of(row.getColumn(2).getInt());
  data.kind =
      row.getColumn(3).getString() == "timing" ? ColumnKind::Timing : ColumnKind::Deterministic;
  for (const std::string_view count : kCounts) data.count = data.count || data.name == count;
  if (!data.count && data.kind == ColumnKind::Deterministic) {
    data.split = split_of(data.name);
    data.final_rule = row.getColumn(4).getString();
  }
  // CROSS JOIN keeps this order: one lookup in `final` a run of the sweep.
  const std::string company =
      "(SELECT max(runs_in_process) FROM attempt a WHERE a.run_id = "
      "f.run_id AND a.n > 0)";
  column.sql =
      cat("SELECT f.run_id, f.value", data.kind == ColumnKind::Timing ? ", " + company : "",
          " FROM sweep_run sr CROSS JOIN final f ON f.metric_id = ", row.getColumn(0).getInt64(),
          " AND f.run_id = sr.run_id WHERE sr.sweep_id = ?");
  return true;
}

bool find_time(TableColumn& column) {
  for (const WallTime& time : kTimes) {
    if (column.data.name != time.name) continue;
    column.data.unit = "h";
    column.data.better = Better::Lower;
    column.data.kind = ColumnKind::Timing;
    column.sql = cat("SELECT run_id, sum((end_us - start_us) / 3.6e9 * ", time.factor,
                     "), max(runs_in_process) FROM sweep_run JOIN attempt USING(run_id) "
                     "WHERE sweep_id = ? AND n > 0 GROUP BY run_id");
    return true;
  }
  return false;
}

bool find_bench(TableColumn& column) {
  std::string_view name = column.data.name;
  std::string condition;
  const std::size_t at = name.find('@');
  const bool train = name.starts_with("train_");
  if (at != std::string_view::npos) {
    condition = "b.protocol = " + sql_literal(name.substr(at + 1));
    name = name.substr(0, at);
  } else {
    condition = cat("b.protocol ", train ? "" : "NOT ", "LIKE 'train%'");
  }
  if (train) name.remove_prefix(6);
  for (const BenchFigure& figure : kFigures) {
    if (name != figure.name) continue;
    column.data.unit = figure.unit;
    column.data.better = figure.better;
    column.data.kind = ColumnKind::Bench;
    // The newest row of each structure; what must not be mixed makes up the protocol's name.
    column.sql = cat(
        "SELECT r.run_id, ", figure.sql,
        ", b.protocol || coalesce(', ' || device, '') || coalesce(', ' || dtype, '') || "
        "coalesce(', batch ' || batch, '') || coalesce(', ' || resolution || ' px', ''), spread "
        "FROM sweep_run sr CROSS JOIN run r USING(run_id) JOIN bench b ON b.bench_id = "
        "(SELECT max(b.bench_id) FROM bench b WHERE b.structure_hash = r.structure_hash AND ",
        condition, " AND ", figure.sql, " IS NOT NULL) WHERE sr.sweep_id = ?");
    return true;
  }
  return false;
}

}  // namespace

TableColumn find_column(SQLite::Database& db, const std::string& name) {
  TableColumn column;
  column.data.name = name;
  column.known = find_metric(db, column) || find_time(column) || find_bench(column);
  if (!column.known) column.sql = "SELECT NULL, NULL WHERE ? IS NULL";
  return column;
}

std::vector<std::string> bench_column_names() {
  std::vector<std::string> names;
  for (const BenchFigure& figure : kFigures) {
    names.emplace_back(figure.name);
    names.push_back(cat("train_", figure.name));
  }
  for (const WallTime& time : kTimes) names.emplace_back(time.name);
  return names;
}

}  // namespace ablate
