#include "results/table.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "results/number_format.h"
#include "results/table_cells.h"
#include "results/table_text.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

std::size_t find_baseline(const TableSpec& spec, const TableData& data) {
  if (data.rows.empty()) throw SpecError("the table has no rows");
  if (spec.baseline.empty()) return 0;
  std::vector<std::string> labels;
  for (std::size_t row = 0; row < data.rows.size(); ++row) {
    if (data.rows[row].label == spec.baseline) return row;
    labels.push_back(data.rows[row].label);
  }
  throw SpecError(
      cat("table.baseline: no row \"", spec.baseline, "\"", suggestion(spec.baseline, labels)));
}

/// A column of one protocol, or an error that says who was measured how.
void check_protocol(const TableData& data, std::size_t column) {
  if (data.columns[column].kind != ColumnKind::Bench) return;
  std::map<std::string, std::string> row_by_protocol;
  for (const RowData& row : data.rows) {
    const CellData& cell = row.cells[column];
    if (!cell.values.empty()) row_by_protocol.emplace(cell.protocol, row.label);
  }
  if (row_by_protocol.size() < 2) return;
  std::vector<std::string> parts;
  for (const auto& [protocol, label] : row_by_protocol) {
    parts.push_back(cat("\"", protocol, "\" (row \"", label, "\")"));
  }
  throw SpecError(cat("column \"", data.columns[column].name, "\" mixes protocols: ", join(parts),
                      "; measure all rows under one of them"));
}

/// Values that are not finite become diverged seeds; refused training times are withheld.
CellData usable(const CellData& cell, ColumnKind kind) {
  CellData result = cell;
  const auto removed =
      std::erase_if(result.values, [](const SeedValue& v) { return !std::isfinite(v.value); });
  result.diverged += removed;
  if (kind == ColumnKind::Timing && cell.shared_device) result.values.clear();
  return result;
}

std::vector<ColumnView> make_views(const TableSpec& spec, const TableData& data,
                                   std::size_t baseline) {
  for (const RowData& row : data.rows) {
    ABLATE_CHECK(row.cells.size() == data.columns.size(), "row ", row.label);
  }
  std::vector<ColumnView> views;
  views.reserve(data.columns.size());
  for (std::size_t column = 0; column < data.columns.size(); ++column) {
    check_protocol(data, column);
    std::vector<CellData> cells;
    for (const RowData& row : data.rows) {
      cells.push_back(usable(row.cells[column], data.columns[column].kind));
    }
    views.emplace_back(spec, data.columns[column], std::move(cells), baseline);
  }
  return views;
}

std::vector<RenderedColumn> make_columns(const std::vector<ColumnView>& views) {
  std::vector<RenderedColumn> columns{{"", "#", "", ColumnRole::Number, {}},
                                      {"", "variant", "", ColumnRole::Label, {}}};
  for (const ColumnView& view : views) {
    std::vector<RenderedColumn> parts = view.columns;
    parts.front().statistics = column_statistics(view);
    columns.insert(columns.end(), parts.begin(), parts.end());
  }
  return columns;
}

RenderedRow make_row(const TableData& data, const std::vector<ColumnView>& views, std::size_t row,
                     std::size_t baseline, Notes& notes) {
  const RowData& facts = data.rows[row];
  RenderedRow result{row == baseline ? RowKind::Baseline : RowKind::Ours, facts.label, {}};
  result.cells.push_back({std::to_string(row + 1), {}, {}});
  Cell label{facts.label, {}, {}};
  if (facts.images_seen) {
    label.statistics.push_back({"images_seen", full_precision(*facts.images_seen)});
  }
  for (const std::string& note : row_notes(facts, data.rows[baseline])) {
    label.notes.push_back(notes.add(note));
  }
  result.cells.push_back(std::move(label));
  for (const ColumnView& view : views) {
    for (Cell& cell : cells_of(view, row, notes)) result.cells.push_back(std::move(cell));
  }
  return result;
}

/// A published row: values in their own columns as printed there, nothing computed from them.
RenderedRow make_paper_row(const PaperRow& paper, const std::vector<ColumnView>& views) {
  ABLATE_CHECK(paper.values.size() == views.size(), "paper row ", paper.label);
  RenderedRow result{RowKind::Paper, paper.label, {}};
  result.cells.push_back({});
  result.cells.push_back({paper.label, {}, {{"source", paper.source}}});
  for (std::size_t column = 0; column < views.size(); ++column) {
    for (const RenderedColumn& part : views[column].columns) {
      Cell& cell = result.cells.emplace_back();
      if (part.role != ColumnRole::Value || !paper.values[column]) continue;
      cell.text = full_precision(*paper.values[column]);
      cell.statistics.push_back({"value", cell.text});
    }
  }
  return result;
}

/// One line whatever the SQL was laid out like.
std::string comment_of(const TableData& data) {
  std::string sql;
  for (const char c : data.sql) {
    const bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    if (!space) {
      sql += c;
    } else if (!sql.empty() && sql.back() != ' ') {
      sql += ' ';
    }
  }
  if (!sql.empty() && sql.back() == ' ') sql.pop_back();
  return cat("database ", data.database_hash, "; SQL: ", sql);
}

}  // namespace

std::string note_numbers(const std::vector<std::size_t>& notes) {
  std::vector<std::size_t> numbers;
  for (const std::size_t note : notes) numbers.push_back(note + 1);
  return join(numbers, ",");
}

RenderedTable build_table(const TableSpec& spec, const TableData& data) {
  const std::size_t baseline = find_baseline(spec, data);
  const std::vector<ColumnView> views = make_views(spec, data, baseline);
  RenderedTable table;
  table.title = data.title;
  table.columns = make_columns(views);
  Notes notes;
  for (std::size_t row = 0; row < data.rows.size(); ++row) {
    table.rows.push_back(make_row(data, views, row, baseline, notes));
  }
  for (const PaperRow& paper : data.papers) table.rows.push_back(make_paper_row(paper, views));
  table.notes = notes.texts();
  table.findings = findings_of(spec, data, views);
  table.caption = caption_of(spec, data, views, baseline);
  table.comment = comment_of(data);
  return table;
}

}  // namespace ablate
