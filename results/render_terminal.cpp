#include <algorithm>
#include <map>
#include <numeric>

#include "results/render.h"
#include "results/text_grid.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

constexpr std::string_view kBold = "\x1b[1m", kPaper = "\x1b[2;3m", kDim = "\x1b[2m",
                           kReset = "\x1b[0m";
constexpr std::size_t kKeyColumns = 2;  // number and label, repeated in every panel
constexpr std::size_t kGap = 2;

std::string ascii_of(const std::string& text) {
  static const std::vector<std::pair<std::string_view, std::string_view>> replacements = {
      {"±", "+/-"}, {"−", "-"}, {"≥", ">="}, {"Δ", "diff"}, {"×", "x"}, {"–", "-"}, {"α", "alpha"}};
  return replace_all(text, replacements);
}

std::string marker(const std::vector<std::size_t>& notes, bool ascii) {
  if (notes.empty()) return "";
  if (ascii) return cat("[", note_numbers(notes), "]");
  return replace_all(note_numbers(notes), {{"0", "⁰"},
                                           {"1", "¹"},
                                           {"2", "²"},
                                           {"3", "³"},
                                           {"4", "⁴"},
                                           {"5", "⁵"},
                                           {"6", "⁶"},
                                           {"7", "⁷"},
                                           {"8", "⁸"},
                                           {"9", "⁹"}});
}

Align alignment_of(ColumnRole role) { return holds_words(role) ? Align::Left : Align::Right; }

class TerminalRenderer {
 public:
  TerminalRenderer(const RenderedTable& table, const TerminalOptions& options)
      : table_(table), options_(options) {
    grid_.push_back({});
    for (const RenderedColumn& column : table.columns) {
      grid_[0].push_back(text(column.header));
    }
    for (const RenderedRow& row : table.rows) {
      std::vector<std::string>& line = grid_.emplace_back();
      for (const Cell& cell : row.cells) line.push_back(cell_text(cell));
    }
    widths_ = column_widths(grid_);
  }

  std::string render() {
    if (!table_.title.empty()) out_ += styled(kBold, text(table_.title)) + "\n\n";
    for (const std::vector<std::size_t>& panel : panels()) {
      add_panel(panel);
      out_ += "\n";
    }
    for (std::size_t i = 0; i < table_.notes.size(); ++i) {
      paragraph(cat(marker({i}, options_.ascii), " ", table_.notes[i]));
    }
    for (const std::string& finding : table_.findings) paragraph(finding);
    paragraph(join(table_.caption, " "));
    if (!hidden_.empty()) {
      paragraph(cat("Left out at this width: ", join(hidden_), "."));
    }
    out_ += styled(kDim, "-- " + text(table_.comment)) + "\n";
    return std::move(out_);
  }

 private:
  std::string text(const std::string& raw) const { return options_.ascii ? ascii_of(raw) : raw; }

  std::string styled(std::string_view style, const std::string& line) const {
    return options_.colour ? cat(style, line, kReset) : line;
  }

  std::string cell_text(const Cell& cell) const {
    return text(cell.text) + marker(cell.notes, options_.ascii);
  }

  void paragraph(const std::string& raw) {
    for (const std::string& line : wrap_text(text(raw), options_.width, 2)) out_ += line + "\n";
  }

  std::size_t width_of(const std::vector<std::size_t>& columns) const {
    std::size_t width = 0;
    for (const std::size_t column : columns) width += widths_[column] + kGap;
    return width;  // one gap too many: the one before what follows
  }

  /// Columns of one group, without its lesser parts where all do not fit into `room`.
  std::vector<std::size_t> fit(std::vector<std::size_t> group, std::size_t room) {
    for (const ColumnRole role : {ColumnRole::OwnP, ColumnRole::Claim, ColumnRole::Pairs}) {
      if (width_of(group) <= room) break;
      std::erase_if(group, [&](std::size_t column) {
        if (table_.columns[column].role != role) return false;
        const std::string name = text(table_.columns[column].header);
        if (std::find(hidden_.begin(), hidden_.end(), name) == hidden_.end()) {
          hidden_.push_back(name);
        }
        return true;
      });
    }
    return group;
  }

  /// "p (Holm)" says nothing in a panel without the values that it belongs to.
  void name_parts(const std::vector<std::size_t>& group) {
    for (const std::size_t column : group) {
      if (table_.columns[column].role == ColumnRole::Value) continue;
      grid_[0][column] = cat(text(table_.columns[column].group), ": ", grid_[0][column]);
    }
    widths_ = column_widths(grid_);
  }

  /// The columns of every panel, greedily filled.
  std::vector<std::vector<std::size_t>> panels() {
    std::vector<std::size_t> key(kKeyColumns);
    std::iota(key.begin(), key.end(), std::size_t{0});
    const std::size_t limit = options_.width + kGap, key_width = width_of(key);
    std::vector<std::vector<std::size_t>> result;
    for (std::size_t first = kKeyColumns; first < table_.columns.size();) {
      std::vector<std::size_t> group;
      std::size_t end = first;
      while (end < table_.columns.size() &&
             table_.columns[end].group == table_.columns[first].group) {
        group.push_back(end++);
      }
      first = end;
      if (options_.width > 0) group = fit(group, limit - std::min(limit, key_width));
      const auto add = [&](const std::vector<std::size_t>& columns) {
        const bool fits = !result.empty() && (options_.width == 0 ||
                                              width_of(result.back()) + width_of(columns) <= limit);
        if (!fits) result.push_back(key);
        result.back().insert(result.back().end(), columns.begin(), columns.end());
      };
      if (options_.width == 0 || key_width + width_of(group) <= limit) {
        add(group);
      } else {
        name_parts(group);
        for (const std::size_t column : group) add({column});
      }
    }
    if (result.empty()) result.push_back(key);
    return result;
  }

  /// Whether a row of a panel is nothing but its label.
  static bool says_nothing(const std::vector<std::string>& cells) {
    return std::all_of(cells.begin() + kKeyColumns, cells.end(),
                       [](const std::string& cell) { return cell.empty(); });
  }

  void add_panel(const std::vector<std::size_t>& panel) {
    std::vector<std::vector<std::string>> grid;
    for (const auto& row : grid_) {
      std::vector<std::string>& line = grid.emplace_back();
      for (const std::size_t column : panel) line.push_back(row[column]);
    }
    std::vector<Align> alignment;
    for (const std::size_t column : panel) {
      alignment.push_back(alignment_of(table_.columns[column].role));
    }
    const std::vector<std::string> lines = grid_lines(grid, alignment);
    std::string rule;
    for (std::size_t i = kGap; i < width_of(panel); ++i) rule += options_.ascii ? "-" : "─";
    out_ += styled(kBold, lines[0]) + "\n" + rule + "\n";
    bool papers = false;
    for (std::size_t row = 0; row < table_.rows.size(); ++row) {
      const RowKind kind = table_.rows[row].kind;
      if (kind == RowKind::Paper && says_nothing(grid[row + 1])) continue;
      if (kind == RowKind::Paper && !papers) out_ += rule + "\n";
      papers = papers || kind == RowKind::Paper;
      const std::string& line = lines[row + 1];
      out_ += kind == RowKind::Paper      ? styled(kPaper, line)
              : kind == RowKind::Baseline ? styled(kBold, line)
                                          : line;
      out_ += "\n";
    }
  }

  const RenderedTable& table_;
  const TerminalOptions& options_;
  std::vector<std::vector<std::string>> grid_;  ///< header, then rows
  std::vector<std::size_t> widths_;
  std::vector<std::string> hidden_;
  std::string out_;
};

}  // namespace

std::string render_terminal(const RenderedTable& table, const TerminalOptions& options) {
  return TerminalRenderer(table, options).render();
}

}  // namespace ablate
