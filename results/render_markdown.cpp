#include "results/render.h"
#include "results/text_grid.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

std::string markdown_text(std::string_view text) {
  static const std::vector<std::pair<std::string_view, std::string_view>> replacements = {
      {"\\", "\\\\"}, {"|", "\\|"}, {"*", "\\*"},  {"_", "\\_"},  {"`", "\\`"},
      {"[", "\\["},   {"]", "\\]"}, {"#", "\\#"},  {"<", "&lt;"}, {">", "&gt;"},
      {"~", "\\~"},   {"$", "\\$"}, {"&", "&amp;"}};
  return replace_all(text, replacements);
}

std::string markdown_marker(const std::vector<std::size_t>& notes) {
  return notes.empty() ? "" : cat("<sup>", note_numbers(notes), "</sup>");
}

std::string markdown_cell(const Cell& cell, RowKind kind) {
  std::string text = markdown_text(cell.text);
  if (kind == RowKind::Paper && !text.empty()) text = cat("*", text, "*");
  return text + markdown_marker(cell.notes);
}

}  // namespace

std::string render_markdown(const RenderedTable& table) {
  std::string out;
  if (!table.title.empty()) out += cat("**", markdown_text(table.title), "**\n\n");
  std::string header = "|", rule = "|";
  for (const RenderedColumn& column : table.columns) {
    header += cat(" ", markdown_text(column.header), " |");
    rule += holds_words(column.role) ? ":---|" : "---:|";
  }
  out += cat(header, "\n", rule, "\n");
  for (const RenderedRow& row : table.rows) {
    out += "|";
    for (const Cell& cell : row.cells) out += cat(" ", markdown_cell(cell, row.kind), " |");
    out += "\n";
  }
  out += "\n";
  for (std::size_t i = 0; i < table.notes.size(); ++i) {
    out += cat("- ", markdown_marker({i}), " ", markdown_text(table.notes[i]), "\n");
  }
  for (const std::string& finding : table.findings) out += cat("- ", markdown_text(finding), "\n");
  if (!table.notes.empty() || !table.findings.empty()) out += "\n";
  out += cat(markdown_text(join(table.caption, " ")), "\n\n");
  // "--" may not occur inside a comment.
  out += cat("<!-- ", replace_all(table.comment, {{"--", "- -"}}), " -->\n");
  return out;
}

}  // namespace ablate
