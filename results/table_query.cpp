#include "results/table_query.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "results/number_format.h"
#include "results/sqlite.h"
#include "results/table_columns.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"

namespace ablate {
namespace {

constexpr const char* kRunsSql =
    "SELECT sv.position, sv.label, r.run_id, r.seed, r.state, r.images_seen FROM sweep_run sr "
    "JOIN run r USING(run_id) JOIN sweep_variant sv "
    "ON sv.sweep_id = sr.sweep_id AND sv.variant_id = r.variant_id "
    "WHERE sr.sweep_id = ? ORDER BY sv.position, sv.label, r.seed";

struct RunRef {
  std::size_t row = 0;
  std::int64_t seed = 0;
  bool done = false, diverged = false;
};

class TableQuery {
 public:
  TableQuery(SQLite::Database& db, std::int64_t sweep) : db_(db), sweep_(sweep) {}

  void read_runs(std::size_t columns);
  void read_column(std::size_t index, const TableColumn& column);
  void read_facts();
  void check_column(const TableColumn& column) const;
  std::string hash() const;

  TableData data;

 private:
  template <typename Add>
  void for_each_row(const std::string& sql, Add add);
  void count_missing(std::size_t index, const std::vector<bool>& has_value);

  SQLite::Database& db_;
  std::int64_t sweep_;
  std::vector<RunRef> runs_;
  std::unordered_map<std::int64_t, std::size_t> index_of_;  // run_id -> runs_
  bool any_done_ = false;
};

void TableQuery::read_runs(std::size_t columns) {
  auto rows = prepare(db_, kRunsSql, sweep_);
  while (rows.executeStep()) {
    const std::string label = rows.getColumn(1).getString();
    if (data.rows.empty() || data.rows.back().label != label) {
      data.rows.push_back({label, {}, {}, {}, {}, {}});
      data.rows.back().cells.resize(columns);
    }
    RowData& row = data.rows.back();
    const std::string state = rows.getColumn(4).getString();
    if (const auto images = number_or_null(rows.getColumn(5)))
      row.images_seen = std::max(row.images_seen.value_or(0), *images);
    index_of_[rows.getColumn(2).getInt64()] = runs_.size();
    runs_.push_back(
        {data.rows.size() - 1, rows.getColumn(3).getInt64(), state == "done", state == "diverged"});
    any_done_ = any_done_ || state == "done";
  }
}

// Calls add(run, statement) for every result row; its first column is the run.
template <typename Add>
void TableQuery::for_each_row(const std::string& sql, Add add) {
  auto rows = prepare(db_, sql, sweep_);
  while (rows.executeStep()) {
    const auto found = index_of_.find(rows.getColumn(0).getInt64());
    if (found != index_of_.end()) add(found->second, rows);
  }
}

void TableQuery::check_column(const TableColumn& column) const {
  if (column.known || !any_done_) return;
  std::vector<std::string> names = bench_column_names();
  SQLite::Statement rows(db_, "SELECT name FROM metric ORDER BY name");
  while (rows.executeStep()) names.push_back(rows.getColumn(0).getString());
  throw SpecError(
      cat("table: no column \"", column.data.name, "\"", suggestion(column.data.name, names)));
}

void TableQuery::count_missing(std::size_t index, const std::vector<bool>& has_value) {
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    CellData& cell = data.rows[runs_[i].row].cells[index];
    if (runs_[i].diverged)
      ++cell.diverged;
    else if (!has_value[i])
      ++cell.missing;
  }
}

void TableQuery::read_column(std::size_t index, const TableColumn& column) {
  data.columns.push_back(column.data);
  std::vector<bool> has_value(runs_.size());
  for_each_row(column.sql, [&](std::size_t i, SQLite::Statement& row) {
    if (!runs_[i].done) return;
    CellData& cell = data.rows[runs_[i].row].cells[index];
    // NULL is a NaN that was measured: the table counts it as diverged.
    const double value = number_or_null(row.getColumn(1)).value_or(std::nan(""));
    cell.values.push_back({runs_[i].seed, value * column.scale});
    has_value[i] = true;
    if (column.data.kind == ColumnKind::Timing)
      cell.shared_device = cell.shared_device || row.getColumn(2).getInt() > 1;
    if (column.data.kind != ColumnKind::Bench) return;
    const std::string protocol = row.getColumn(2).getString();
    // Rows of one cell under two protocols: the name shows both, and the table refuses it.
    if (cell.protocol.find(protocol) == std::string::npos)
      cell.protocol += cell.protocol.empty() ? protocol : " and " + protocol;
    if (const auto spread = number_or_null(row.getColumn(3)))
      cell.spread = std::max(cell.spread.value_or(0), *spread);
  });
  for (RowData& row : data.rows)
    std::sort(row.cells[index].values.begin(), row.cells[index].values.end(),
              [](const SeedValue& a, const SeedValue& b) { return a.seed < b.seed; });
  count_missing(index, has_value);
}

template <typename T>
void add_once(std::vector<T>& list, T value) {
  if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(std::move(value));
}

void TableQuery::read_facts() {
  std::unordered_map<std::int64_t, std::string> toolchains;
  SQLite::Statement rows(
      db_,
      "SELECT toolchain_id, 'libtorch ' || coalesce(libtorch, '?') || "
      "coalesce(', CUDA ' || cuda, '') || coalesce(', driver ' || driver, '') || "
      "coalesce(', commit ' || substr(git_commit, 1, 12), '') || "
      "CASE WHEN git_dirty THEN '+' ELSE '' END FROM toolchain");
  while (rows.executeStep())
    toolchains[rows.getColumn(0).getInt64()] = rows.getColumn(1).getString();
  for_each_row(
      "SELECT run_id, toolchain_id, world_size FROM sweep_run JOIN attempt USING(run_id) "
      "WHERE sweep_id = ? AND n > 0",
      [&](std::size_t i, SQLite::Statement& row) {
        RowData& target = data.rows[runs_[i].row];
        if (!row.isColumnNull(1))
          add_once(target.toolchains, toolchains[row.getColumn(1).getInt64()]);
        if (!row.isColumnNull(2)) add_once(target.world_sizes, row.getColumn(2).getInt64());
      });
  for_each_row(
      "SELECT r.run_id, p.txt FROM sweep_run sr JOIN run r USING(run_id) JOIN variant_param p "
      "ON p.variant_id = r.variant_id AND p.path = 'precision' WHERE sr.sweep_id = ?",
      [&](std::size_t i, SQLite::Statement& row) {
        add_once(data.rows[runs_[i].row].precisions, row.getColumn(1).getString());
      });
}

// Names the content the table was made from, wherever the file lies.
std::string TableQuery::hash() const {
  std::string text;
  for (const RowData& row : data.rows) {
    text += row.label + '\n';
    for (const CellData& cell : row.cells) {
      for (const SeedValue& value : cell.values)
        text += cat(value.seed, '=', full_precision(value.value), ' ');
      text += cat(cell.diverged, ' ', cell.missing, '\n');
    }
  }
  return hash128_hex(text);
}

// The same numbers for whoever wants to look at them.
std::string shown_sql(const std::string& sweep, const TableSpec& spec) {
  std::vector<std::string> names;
  for (const std::string& column : spec.columns) names.push_back(sql_literal(column));
  return cat(
      "SELECT label, seed, state, m.name, value FROM sweep JOIN sweep_run USING(sweep_id) "
      "JOIN run USING(run_id) JOIN sweep_variant USING(sweep_id, variant_id) "
      "JOIN final USING(run_id) JOIN metric m USING(metric_id) WHERE sweep.name = ",
      sql_literal(sweep), " AND m.name IN (", join(names), ") ORDER BY position, seed");
}

std::vector<PaperRow> paper_rows(SQLite::Database& db, const TableSpec& spec) {
  std::vector<PaperRow> papers;
  for (const std::string& source : spec.references) {
    auto rows = prepare(db,
                        "SELECT model, method, setting, dataset, metric, value, coalesce(note, '') "
                        "FROM reference WHERE source = ? ORDER BY model, method, setting, dataset",
                        source);
    std::string key;
    while (rows.executeStep()) {
      std::vector<std::string> parts;
      for (int i = 0; i < 4; ++i)
        if (!rows.getColumn(i).getString().empty()) parts.push_back(rows.getColumn(i).getString());
      if (papers.empty() || key != join(parts, "\n")) {
        key = join(parts, "\n");
        papers.push_back({join(parts), source, {}, rows.getColumn(6).getString()});
        papers.back().values.resize(spec.columns.size());
      }
      const auto column =
          std::find(spec.columns.begin(), spec.columns.end(), rows.getColumn(4).getString());
      if (column != spec.columns.end())
        papers.back().values[static_cast<std::size_t>(column - spec.columns.begin())] =
            number_or_null(rows.getColumn(5));
    }
  }
  return papers;
}

}  // namespace

TableData query_table(ResultStore& store, const std::string& sweep, const TableSpec& spec,
                      const std::string& title) {
  return with_database_errors(store.file(), [&] {
    SQLite::Database& db = store.database();
    SQLite::Transaction snapshot(db);  // all queries see one state
    const auto id = query_integer(db, "SELECT sweep_id FROM sweep WHERE name = ?", sweep);
    if (!id) throw SpecError(cat("no sweep \"", sweep, "\" in ", store.file().string()));
    TableQuery query(db, *id);
    query.read_runs(spec.columns.size());
    for (std::size_t i = 0; i < spec.columns.size(); ++i) {
      const TableColumn column = find_column(db, spec.columns[i]);
      query.check_column(column);
      query.read_column(i, column);
    }
    query.read_facts();
    query.data.title = title.empty() ? sweep : title;
    query.data.papers = paper_rows(db, spec);
    query.data.database_hash = query.hash();
    query.data.sql = shown_sql(sweep, spec);
    return std::move(query.data);
  });
}

}  // namespace ablate
