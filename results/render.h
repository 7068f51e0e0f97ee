#pragma once

#include <cstddef>
#include <string>

#include "results/table.h"

namespace ablate {

struct TerminalOptions {
  std::size_t width = 0;  ///< of the terminal; 0: no limit
  bool colour = false;    ///< bold baseline, grey italics for papers
  bool ascii = false;     ///< "+/-" for "±" and so on, for locales without UTF-8
};

/// Aligned columns without boxes. What is wider than the terminal is broken into panels, column by
/// column of the spec, each with number and label; a single column that is still too wide loses
/// its lesser parts (own t, margin, pairs), which is said below, and is broken up itself at last.
std::string render_terminal(const RenderedTable& table, const TerminalOptions& options = {});

/// A pipe table (GitHub flavour); database and SQL in an HTML comment.
std::string render_markdown(const RenderedTable& table);

/// A `table` environment with booktabs rules, no wider than the text; needs booktabs and graphicx.
std::string render_latex(const RenderedTable& table);

/// One row a number behind a cell, in full precision, after a comment line ("#"):
/// row, label, kind (ours, baseline, paper, column), column, unit, statistic, value, note.
std::string render_csv(const RenderedTable& table);

}  // namespace ablate
