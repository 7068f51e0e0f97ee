#include "results/render.h"
#include "results/text_grid.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

/// Everything LaTeX would not print as it stands: its own characters, and those beyond ASCII that
/// our texts and labels use (pdfLaTeX has no glyphs for most of them).
const std::vector<std::pair<std::string_view, std::string_view>>& replacements() {
  static const std::vector<std::pair<std::string_view, std::string_view>> table = {
      {"\\", "\\textbackslash{}"},
      {"&", "\\&"},
      {"%", "\\%"},
      {"$", "\\$"},
      {"#", "\\#"},
      {"_", "\\_"},
      {"{", "\\{"},
      {"}", "\\}"},
      {"~", "\\textasciitilde{}"},
      {"^", "\\textasciicircum{}"},
      {"<", "$<$"},
      {">", "$>$"},
      {"|", "$|$"},
      {"±", "$\\pm$"},
      {"−", "$-$"},
      {"≥", "$\\geq$"},
      {"≤", "$\\leq$"},
      {"Δ", "$\\Delta$"},
      {"×", "$\\times$"},
      {"–", "--"},
      {"—", "---"},
      {"→", "$\\rightarrow$"},
      {"…", "\\dots{}"},
      {"·", "$\\cdot$"},
      {"α", "$\\alpha$"},
      {"β", "$\\beta$"},
      {"γ", "$\\gamma$"},
      {"κ", "$\\kappa$"},
      {"λ", "$\\lambda$"},
      {"μ", "$\\mu$"},
      {"µ", "$\\mu$"},
      {"ρ", "$\\rho$"},
      {"σ", "$\\sigma$"},
      {"τ", "$\\tau$"},
      {"²", "$^2$"},
      {"³", "$^3$"}};
  return table;
}

/// A straight quote opens at the beginning of a word and closes elsewhere, also within others.
std::string latex_text(std::string_view text) {
  std::string quoted;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool opens = i == 0 || text[i - 1] == ' ' || text[i - 1] == '(';
    quoted += text[i] != '"' ? std::string(1, text[i]) : opens ? "``" : "''";
  }
  return replace_all(quoted, replacements());
}

std::string latex_marker(const std::vector<std::size_t>& notes) {
  return notes.empty() ? "" : cat("\\textsuperscript{", note_numbers(notes), "}");
}

std::string latex_cell(const Cell& cell, RowKind kind) {
  std::string text = latex_text(cell.text);
  if (kind == RowKind::Paper && !text.empty()) text = cat("\\textit{", text, "}");
  return text + latex_marker(cell.notes);
}

std::string alignment_of(const RenderedTable& table) {
  std::string result;
  for (const RenderedColumn& column : table.columns) {
    result += holds_words(column.role) ? 'l' : 'r';
  }
  return result;
}

std::string row_text(const std::vector<std::string>& cells) {
  return cat("    ", join(cells, " & "), " \\\\\n");
}

std::string body_of(const RenderedTable& table) {
  std::string out;
  bool papers = false;
  for (const RenderedRow& row : table.rows) {
    if (row.kind == RowKind::Paper && !papers) out += "    \\midrule\n";
    papers = papers || row.kind == RowKind::Paper;
    std::vector<std::string> cells;
    for (const Cell& cell : row.cells) cells.push_back(latex_cell(cell, row.kind));
    out += row_text(cells);
  }
  return out;
}

}  // namespace

std::string render_latex(const RenderedTable& table) {
  std::vector<std::string> header;
  for (const RenderedColumn& column : table.columns) header.push_back(latex_text(column.header));
  std::string out = cat("% ", table.comment, "\n% needs \\usepackage{booktabs,graphicx}\n");
  out += "\\begin{table}\n  \\centering\n  \\small\n  \\setlength{\\tabcolsep}{4pt}\n";
  const std::string title = table.title.empty() ? "" : latex_text(table.title) + ". ";
  out += cat("  \\caption{", title, latex_text(join(table.caption, " ")), "}\n");
  // Made smaller where it is wider than the text, and only there.
  out += "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n";
  out += cat("  \\begin{tabular}{", alignment_of(table), "}\n    \\toprule\n", row_text(header),
             "    \\midrule\n", body_of(table), "    \\bottomrule\n  \\end{tabular}}\n");
  if (!table.notes.empty() || !table.findings.empty()) {
    out += "  \\par\\smallskip\n  \\begin{minipage}{\\linewidth}\\footnotesize\\raggedright\n";
    for (std::size_t i = 0; i < table.notes.size(); ++i) {
      out += cat("    ", latex_marker({i}), "~", latex_text(table.notes[i]), "\\par\n");
    }
    for (const std::string& finding : table.findings) {
      out += cat("    ", latex_text(finding), "\\par\n");
    }
    out += "  \\end{minipage}\n";
  }
  return out + "\\end{table}\n";
}

}  // namespace ablate
