#include "results/table_query.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "results/sqlite.h"
#include "results/table_columns.h"
#include "runner/core/add_once.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"

namespace ablate {
namespace {

struct RunFacts {
  std::size_t row = 0;
  std::int64_t seed = 0;
  bool done = false, diverged = false;
  std::string structure;
  // Over all attempts.
  double wall_h = 0, gpu_h = 0;
  bool shared_device = false;
};

/// Few plain queries whose rows are joined here: several times faster than joins over texts.
class TableQuery {
 public:
  TableQuery(SQLite::Database& db, std::int64_t sweep) : db_(db), sweep_(sweep) {}

  void read_rows(std::size_t columns);
  void read_runs();
  void read_attempts();
  void read_column(std::size_t index, const TableColumn& column);
  std::string hash() const;

  TableData data;

 private:
  void check_known(const TableColumn& column) const;
  void read_metric(const TableColumn& column);
  void read_times(const TableColumn& column);
  void read_bench(const TableColumn& column);
  void add_value(std::size_t run, double value);
  CellData& cell_of(std::size_t run) { return data.rows[runs_[run].row].cells[index_]; }
  RunFacts* find_run(std::int64_t run_id);

  SQLite::Database& db_;
  std::int64_t sweep_;
  std::unordered_map<std::int64_t, std::size_t> row_of_variant_;
  std::vector<RunFacts> runs_;
  std::unordered_map<std::int64_t, std::size_t> run_of_id_;
  std::size_t index_ = 0;        // of the column being read
  std::vector<bool> has_value_;  // by run, in that column
};

void TableQuery::read_rows(std::size_t columns) {
  auto rows = prepare(db_,
                      "SELECT sv.variant_id, label, p.txt FROM sweep_variant sv "
                      "LEFT JOIN variant_param p ON p.variant_id = sv.variant_id AND "
                      "p.path = 'precision' WHERE sweep_id = ? ORDER BY position, label",
                      sweep_);
  while (rows.executeStep()) {
    row_of_variant_[rows.getColumn(0).getInt64()] = data.rows.size();
    RowData row;
    row.label = rows.getColumn(1).getString();
    row.cells.resize(columns);
    if (!rows.isColumnNull(2)) row.precisions.push_back(rows.getColumn(2).getString());
    data.rows.push_back(std::move(row));
  }
  auto notes = prepare(db_,
                       "SELECT variant_id, text FROM sweep_variant JOIN variant_note "
                       "USING(variant_id) WHERE sweep_id = ? ORDER BY variant_id, "
                       "variant_note.position",
                       sweep_);
  while (notes.executeStep()) {
    RowData& row = data.rows[row_of_variant_.at(notes.getColumn(0).getInt64())];
    row.notes.push_back(notes.getColumn(1).getString());
  }
}

void TableQuery::read_runs() {
  auto rows = prepare(db_,
                      "SELECT run_id, variant_id, seed, state, images_seen, structure_hash "
                      "FROM sweep_run JOIN run USING(run_id) WHERE sweep_id = ?",
                      sweep_);
  while (rows.executeStep()) {
    RunFacts run;
    run.row = row_of_variant_.at(rows.getColumn(1).getInt64());
    run.seed = rows.getColumn(2).getInt64();
    const std::string state = rows.getColumn(3).getString();
    run.done = state == "done";
    run.diverged = state == "diverged";
    run.structure = rows.getColumn(5).getString();
    RowData& row = data.rows[run.row];
    if (const auto images = number_or_null(rows.getColumn(4)))
      row.images_seen = std::max(row.images_seen.value_or(0), *images);
    run_of_id_[rows.getColumn(0).getInt64()] = runs_.size();
    runs_.push_back(std::move(run));
  }
}

RunFacts* TableQuery::find_run(std::int64_t run_id) {
  const auto found = run_of_id_.find(run_id);
  return found == run_of_id_.end() ? nullptr : &runs_[found->second];
}

void TableQuery::read_attempts() {
  std::unordered_map<std::int64_t, std::string> toolchains;
  SQLite::Statement names(
      db_,
      "SELECT toolchain_id, 'libtorch ' || coalesce(libtorch, '?') || "
      "coalesce(', CUDA ' || nullif(cuda, ''), '') || coalesce(', driver ' || driver, '') "
      "|| coalesce(', commit ' || substr(git_commit, 1, 12), '') || "
      "CASE WHEN git_dirty THEN '+' ELSE '' END FROM toolchain");
  while (names.executeStep())
    toolchains[names.getColumn(0).getInt64()] = names.getColumn(1).getString();
  auto rows = prepare(db_,
                      "SELECT run_id, toolchain_id, world_size, (end_us - start_us) / 3.6e9, "
                      "runs_in_process FROM sweep_run JOIN attempt USING(run_id) "
                      "WHERE sweep_id = ? AND n > 0",
                      sweep_);
  while (rows.executeStep()) {
    RunFacts* const run = find_run(rows.getColumn(0).getInt64());
    if (run == nullptr) continue;
    RowData& row = data.rows[run->row];
    const std::int64_t ranks = integer_or_null(rows.getColumn(2)).value_or(0);
    if (!rows.isColumnNull(1)) add_once(row.toolchains, toolchains[rows.getColumn(1).getInt64()]);
    if (ranks > 0) add_once(row.world_sizes, ranks);
    run->wall_h += rows.getColumn(3).getDouble();
    run->gpu_h += rows.getColumn(3).getDouble() * static_cast<double>(ranks);
    run->shared_device = run->shared_device || rows.getColumn(4).getInt() > 1;
  }
}

void TableQuery::check_known(const TableColumn& column) const {
  const bool any_done =
      std::any_of(runs_.begin(), runs_.end(), [](const RunFacts& run) { return run.done; });
  if (column.source != TableColumn::Source::Unknown || !any_done) return;
  std::vector<std::string> names = bench_column_names();
  SQLite::Statement rows(db_, "SELECT name FROM metric ORDER BY name");
  while (rows.executeStep()) names.push_back(rows.getColumn(0).getString());
  throw SpecError(
      cat("table: no column \"", column.data.name, "\"", suggestion(column.data.name, names)));
}

void TableQuery::add_value(std::size_t run, double value) {
  cell_of(run).values.push_back({runs_[run].seed, value});
  has_value_[run] = true;
}

void TableQuery::read_metric(const TableColumn& column) {
  // CROSS JOIN keeps this order: one lookup in `final` a run of the sweep.
  auto rows = prepare(db_,
                      "SELECT f.run_id, f.value FROM sweep_run sr CROSS JOIN final f "
                      "ON f.metric_id = ? AND f.run_id = sr.run_id WHERE sr.sweep_id = ?",
                      column.metric_id, sweep_);
  while (rows.executeStep()) {
    const auto found = run_of_id_.find(rows.getColumn(0).getInt64());
    if (found == run_of_id_.end() || !runs_[found->second].done) continue;
    // NULL is a NaN that was measured: the table counts it as diverged.
    add_value(found->second, number_or_null(rows.getColumn(1)).value_or(std::nan("")));
    if (column.data.kind == ColumnKind::Timing && runs_[found->second].shared_device)
      cell_of(found->second).shared_device = true;
  }
}

void TableQuery::read_times(const TableColumn& column) {
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    if (!runs_[i].done || runs_[i].wall_h <= 0) continue;
    add_value(i, column.times_ranks ? runs_[i].gpu_h : runs_[i].wall_h);
    if (runs_[i].shared_device) cell_of(i).shared_device = true;
  }
}

/// After the value was added to the cell.
void add_comparison(CellData& cell, const std::string& structure,
                    const std::optional<double>& ratio, const std::string& against) {
  const bool first = cell.values.size() == 1;
  if (first) cell.structure = structure;
  if (cell.structure != structure) cell.structure.clear();
  const bool goes_on =
      first || (cell.ratios.size() + 1 == cell.values.size() && cell.against == against);
  if (ratio && goes_on) {
    cell.against = against;
    cell.ratios.push_back(*ratio);
  } else {
    cell.ratios.clear();
  }
}

void TableQuery::read_bench(const TableColumn& column) {
  struct Figure {
    std::optional<double> value, spread, ratio;
    std::string protocol, against;
  };
  SQLite::Statement newest(db_, column.bench_sql);
  std::unordered_map<std::string, Figure> figures;
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    if (!runs_[i].done || runs_[i].structure.empty()) continue;
    const auto [entry, is_new] = figures.try_emplace(runs_[i].structure);
    Figure& figure = entry->second;
    if (is_new && rebind(newest, runs_[i].structure).executeStep()) {
      figure = {newest.getColumn(0).getDouble(), number_or_null(newest.getColumn(2)),
                number_or_null(newest.getColumn(3)), newest.getColumn(1).getString(),
                newest.getColumn(4).getString()};
    }
    if (!figure.value) continue;
    add_value(i, *figure.value);
    CellData& cell = cell_of(i);
    // Structures of one cell under two protocols: both are named, and the table refuses them.
    if (cell.protocol.find(figure.protocol) == std::string::npos)
      cell.protocol += cell.protocol.empty() ? figure.protocol : " and " + figure.protocol;
    add_comparison(cell, runs_[i].structure, figure.ratio, figure.against);
    if (figure.spread) cell.spread = std::max(cell.spread.value_or(0), *figure.spread);
  }
}

void TableQuery::read_column(std::size_t index, const TableColumn& column) {
  check_known(column);
  data.columns.push_back(column.data);
  index_ = index;
  has_value_.assign(runs_.size(), false);
  if (column.source == TableColumn::Source::Metric) read_metric(column);
  if (column.source == TableColumn::Source::Time) read_times(column);
  if (column.source == TableColumn::Source::Bench) read_bench(column);
  for (RowData& row : data.rows) {
    std::sort(row.cells[index].values.begin(), row.cells[index].values.end(),
              [](const SeedValue& a, const SeedValue& b) { return a.seed < b.seed; });
  }
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    if (runs_[i].diverged) {
      ++cell_of(i).diverged;
    } else if (!has_value_[i]) {
      ++cell_of(i).missing;
    }
  }
}

// Names the content the table was made from, wherever the file lies.
std::string TableQuery::hash() const {
  std::string text;
  const auto add = [&](auto number) {
    text.append(reinterpret_cast<const char*>(&number), sizeof number);
  };
  for (const RowData& row : data.rows) {
    text += row.label + '\n';
    for (const CellData& cell : row.cells) {
      for (const SeedValue& value : cell.values) {
        add(value.seed);
        add(value.value);
      }
      for (const double ratio : cell.ratios) add(ratio);
      add(cell.diverged);
      add(cell.missing);
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

}  // namespace

TableData query_table(ResultStore& store, const std::string& sweep, const TableSpec& spec,
                      const std::string& title, const std::vector<Publication>& publications) {
  return with_database_errors(store.file(), [&] {
    SQLite::Database& db = store.database();
    SQLite::Transaction snapshot(db);  // all queries see one state
    const auto id = query_integer(db, "SELECT sweep_id FROM sweep WHERE name = ?", sweep);
    if (!id) throw SpecError(cat("no sweep \"", sweep, "\" in ", store.file().string()));
    TableQuery query(db, *id);
    query.read_rows(spec.columns.size());
    query.read_runs();
    query.read_attempts();
    for (std::size_t i = 0; i < spec.columns.size(); ++i)
      query.read_column(i, find_column(db, spec.columns[i]));
    query.data.title = title.empty() ? sweep : title;
    query.data.papers = paper_rows(spec.references, publications, spec.columns);
    query.data.database_hash = query.hash();
    query.data.sql = shown_sql(sweep, spec);
    return std::move(query.data);
  });
}

}  // namespace ablate
