#include "results/render.h"
#include "results/text_grid.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

std::string escape(std::string_view text) {
  static const std::vector<std::pair<std::string_view, std::string_view>> replacements = {
      {"\\", "\\\\"}, {"|", "\\|"}, {"*", "\\*"},  {"_", "\\_"},  {"`", "\\`"}, {"[", "\\["},
      {"]", "\\]"},   {"#", "\\#"}, {"<", "&lt;"}, {">", "&gt;"}, {"~", "\\~"}, {"&", "&amp;"}};
  return replace_all(text, replacements);
}

std::string marker(std::size_t note) { return cat("<sup>", note + 1, "</sup>"); }

std::string cell_text(const Cell& cell, RowKind kind) {
  std::string text = escape(cell.text);
  if (kind == RowKind::Paper && !text.empty()) text = cat("*", text, "*");
  for (const std::size_t note : cell.notes) text += marker(note);
  return text;
}

}  // namespace

std::string render_markdown(const RenderedTable& table) {
  std::string out;
  if (!table.title.empty()) out += cat("**", escape(table.title), "**\n\n");
  std::string header = "|", rule = "|";
  for (const RenderedColumn& column : table.columns) {
    header += cat(" ", escape(column.header), " |");
    rule += holds_words(column.role) ? ":---|" : "---:|";
  }
  out += cat(header, "\n", rule, "\n");
  for (const RenderedRow& row : table.rows) {
    out += "|";
    for (const Cell& cell : row.cells) out += cat(" ", cell_text(cell, row.kind), " |");
    out += "\n";
  }
  out += "\n";
  for (std::size_t i = 0; i < table.notes.size(); ++i) {
    out += cat("- ", marker(i), " ", escape(table.notes[i]), "\n");
  }
  for (const std::string& finding : table.findings) out += cat("- ", escape(finding), "\n");
  if (!table.notes.empty() || !table.findings.empty()) out += "\n";
  out += cat(escape(join(table.caption, " ")), "\n\n");
  // "--" may not occur inside a comment.
  out += cat("<!-- ", replace_all(table.comment, {{"--", "- -"}}), " -->\n");
  return out;
}

}  // namespace ablate
