#include "results/csv.h"
#include "results/render.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

std::string_view kind_name(RowKind kind) {
  return kind == RowKind::Paper ? "paper" : kind == RowKind::Baseline ? "baseline" : "ours";
}

std::string notes_of(const RenderedTable& table, const Cell& cell) {
  std::vector<std::string> texts;
  for (const std::size_t note : cell.notes) texts.push_back(table.notes[note]);
  return join(texts, "; ");
}

}  // namespace

std::string render_csv(const RenderedTable& table) {
  std::string out = cat("# ", table.comment, "\n");
  out += csv_line({"row", "label", "kind", "column", "unit", "statistic", "value", "note"});
  for (const RenderedRow& row : table.rows) {
    for (std::size_t i = 0; i < row.cells.size(); ++i) {
      const Cell& cell = row.cells[i];
      const RenderedColumn& column = table.columns[i];
      const std::string note = notes_of(table, cell);
      const std::string kind(kind_name(row.kind));
      for (const Statistic& s : cell.statistics) {
        out += csv_line(
            {row.cells[0].text, row.label, kind, column.group, column.unit, s.name, s.value, note});
      }
      if (cell.statistics.empty() && !note.empty()) {
        out += csv_line(
            {row.cells[0].text, row.label, kind, column.group, column.unit, "note", "", note});
      }
    }
  }
  for (const RenderedColumn& column : table.columns) {
    for (const Statistic& s : column.statistics) {
      out += csv_line({"", "", "column", column.group, column.unit, s.name, s.value, ""});
    }
  }
  return out;
}

}  // namespace ablate
