#include "results/render.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

/// RFC 4180: quoted when needed, quotes doubled.
std::string field(std::string_view text) {
  if (text.find_first_of(",\"\n\r") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

std::string line(const std::vector<std::string>& fields) {
  std::vector<std::string> escaped;
  for (const std::string& text : fields) escaped.push_back(field(text));
  return join(escaped, ",") + "\n";
}

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
  out += line({"row", "label", "kind", "column", "unit", "statistic", "value", "note"});
  for (const RenderedRow& row : table.rows) {
    for (std::size_t i = 0; i < row.cells.size(); ++i) {
      const Cell& cell = row.cells[i];
      const RenderedColumn& column = table.columns[i];
      const std::string note = notes_of(table, cell);
      const std::string kind(kind_name(row.kind));
      for (const Statistic& s : cell.statistics) {
        out += line(
            {row.cells[0].text, row.label, kind, column.group, column.unit, s.name, s.value, note});
      }
      if (cell.statistics.empty() && !note.empty()) {
        out +=
            line({row.cells[0].text, row.label, kind, column.group, column.unit, "note", "", note});
      }
    }
  }
  for (const RenderedColumn& column : table.columns) {
    for (const Statistic& s : column.statistics) {
      out += line({"", "", "column", column.group, column.unit, s.name, s.value, ""});
    }
  }
  return out;
}

}  // namespace ablate
