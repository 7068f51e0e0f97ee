#include "results/table_columns.h"

#include <algorithm>
#include <array>
#include <utility>

#include "runner/core/text.h"

namespace ablate {
namespace {

struct BenchFigure {
  std::string_view name, sql, unit;
  Better better;
  std::string_view condition = "''";  ///< what must not be mixed besides the protocol
  std::string_view spread = "NULL";   ///< relative, of repeated timings: not of what is counted
  /// Of the figure over the baseline's, which was measured in turns with it.
  std::string_view ratio = "NULL";
};
constexpr std::array<BenchFigure, 7> kFigures = {{
    {"images_per_s", "images_per_s", "1/s", Better::Higher, "''", "spread", "ratio"},
    {"p50_ms", "p50_ms", "ms", Better::Lower, "''", "spread", "1 / ratio"},
    {"p99_ms", "p99_ms", "ms", Better::Lower},
    {"peak_mem_mib", "peak_bytes / 1048576.0", "MiB", Better::Lower},
    {"joules_per_image", "joules_per_image", "J", Better::Lower},
    {"max_batch", "max_batch", "", Better::Higher,
     "coalesce(', within ' || (memory_budget / 1048576) || ' MiB', '')"},
    {"speedup",
     "coalesce(ratio, CASE WHEN structure_hash IN (SELECT baseline_hash FROM bench) THEN 1 END)",
     "", Better::Higher,
     "', against structure ' || substr(coalesce(baseline_hash, structure_hash), 1, 8)"},
}};

constexpr std::array<std::string_view, 5> kCounts = {"params", "params_m", "macs", "gmacs",
                                                     "tokens_final"};

constexpr const char* kMfu = "mfu";

struct TimeColumn {
  std::string_view name, meaning;
  bool times_ranks;
};
constexpr std::array<TimeColumn, 2> kTimes = {{
    {"wall_h", "time of all attempts of the row's own runs, without their parents'", false},
    {"gpu_h",
     "the time of the row's own runs, without their parents', for each rank (a GPU or a "
     "share of the CPU)",
     true},
}};

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
  column.source = TableColumn::Source::Metric;
  column.metric_id = row.getColumn(0).getInt64();
  return true;
}

/// What training logs every epoch under a name that says where it is from.
bool find_mfu(SQLite::Database& db, TableColumn& column) {
  if (column.data.name != kMfu) return false;
  TableColumn logged;
  logged.data.name = "train/mfu";
  if (!find_metric(db, logged)) return false;
  logged.data.name = kMfu;
  logged.data.meaning =
      "share of the device's peak rate that the multiply-accumulates of training make up, in the "
      "last epoch";
  column = std::move(logged);
  return true;
}

bool find_time(TableColumn& column) {
  for (const TimeColumn& time : kTimes) {
    if (column.data.name != time.name) continue;
    column.data.unit = "h";
    column.data.better = Better::Lower;
    column.data.kind = ColumnKind::Timing;
    column.data.meaning = time.meaning;
    column.source = TableColumn::Source::Time;
    column.times_ranks = time.times_ranks;
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
    condition = "protocol = " + sql_literal(name.substr(at + 1));
    name = name.substr(0, at);
  } else {
    condition = cat("protocol ", train ? "" : "NOT ", "LIKE 'train%'");
  }
  if (train) name.remove_prefix(6);
  for (const BenchFigure& figure : kFigures) {
    if (name != figure.name) continue;
    column.data.unit = figure.unit;
    column.data.better = figure.better;
    column.data.kind = ColumnKind::Bench;
    column.source = TableColumn::Source::Bench;
    // What must not be mixed makes up the protocol's name.
    column.bench_sql = cat(
        "SELECT ", figure.sql,
        ", protocol || coalesce(', ' || device, '') || coalesce(', ' || dtype, '') || "
        "coalesce(', batch ' || batch, '') || coalesce(', ' || resolution || ' px', '') || "
        "coalesce(', ' || nullif(threads, 1) || ' threads', '') || ",
        figure.condition, ", ", figure.spread, ", ", figure.ratio,
        ", baseline_hash FROM bench WHERE structure_hash = ? AND ", condition, " AND ", figure.sql,
        " IS NOT NULL ORDER BY measured_us DESC, "
        "substr(origin, 1, instr(origin, ':')) DESC, "
        "CAST(substr(origin, instr(origin, ':') + 1) AS INTEGER) DESC, bench_id DESC LIMIT 1");
    return true;
  }
  return false;
}

}  // namespace

TableColumn find_column(SQLite::Database& db, const std::string& name) {
  TableColumn column;
  column.data.name = name;
  if (find_metric(db, column) || find_mfu(db, column) || find_time(column)) return column;
  find_bench(column);
  return column;
}

std::vector<std::string> bench_column_names() {
  std::vector<std::string> names;
  for (const BenchFigure& figure : kFigures) {
    names.emplace_back(figure.name);
    names.push_back(cat("train_", figure.name));
  }
  for (const TimeColumn& time : kTimes) names.emplace_back(time.name);
  return names;
}

std::vector<std::string> usual_column_names() {
  std::vector<std::string> names = bench_column_names();
  names.insert(names.end(), kCounts.begin(), kCounts.end());
  names.insert(names.end(), {"top1", "top5", "loss", "miou", "macc", "aacc", kMfu});
  return names;
}

}  // namespace ablate
