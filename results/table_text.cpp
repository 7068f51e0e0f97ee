#include "results/table_text.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "results/number_format.h"
#include "runner/core/add_once.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

/// Rows that saw this much more or fewer images than the baseline are footnoted.
constexpr double kImagesTolerance = 0.01;

/// Rows named in one sentence; a table of a thousand undecided rows needs no list of them.
constexpr std::size_t kMostNamed = 6;

std::string row_name(const TableData& data, std::size_t row) {
  return cat("row ", row + 1, " (\"", data.rows[row].label, "\")");
}

std::string plural(std::size_t n, std::string_view what) {
  return cat(n, " ", what, n == 1 ? "" : "s");
}

std::string correction_text(const TableSpec& spec, std::size_t family) {
  if (spec.correction == Correction::None) return "not corrected for the number of rows";
  return cat("Holm over ", plural(family, "row"));
}

const ColumnView* first_tested(const std::vector<ColumnView>& views) {
  for (const ColumnView& view : views) {
    if (view.analysis.tested) return &view;
  }
  return nullptr;
}

std::string_view test_text(TestKind test) {
  switch (test) {
    case TestKind::PairedT:
      return "paired t";
    case TestKind::Welch:
      return "Welch's t (unpaired)";
    case TestKind::Wilcoxon:
      return "Wilcoxon's signed rank test (exact), Hodges-Lehmann difference";
    default:
      return "t in the blocked model variant × seed (residual pooled over the column, equal "
             "variances assumed)";
  }
}

/// The sentence about tests; nothing when no column is tested.
void add_test_sentences(const TableSpec& spec, const TableData& data,
                        const std::vector<ColumnView>& views, std::size_t baseline,
                        std::vector<std::string>& out) {
  out.push_back("Cells: mean ± sd (n seeds).");
  if (first_tested(views) == nullptr) return;
  std::string text =
      cat("Δ against ", row_name(data, baseline), " with ", (1 - spec.alpha) * 100,
          " % interval, not corrected; p two-sided: ", test_text(spec.test), ", ",
          spec.correction == Correction::Holm ? "Holm within the column" : "not corrected",
          ", α = ", spec.alpha);
  if (spec.test != TestKind::PairedT) text += "; own t p: the row's own paired t, not corrected";
  out.push_back(text + ".");
  const bool claims = std::any_of(views.begin(), views.end(), [](const ColumnView& view) {
    return view.analysis.tested && view.spec.margin_of(view.column.name, view.column.unit);
  });
  if (claims) {
    out.push_back(
        cat("Margin: \"no worse\" when the one-sided 95 % bound, \"equal\" when both "
            "(TOST) lie within it; at least ",
            kClaimSeeds, " seeds, not corrected."));
  }
}

/// "top1: test split, last epoch" once for all columns that agree.
void add_rule_sentences(const TableData& data, std::vector<std::string>& out) {
  std::map<std::string, std::vector<std::string>> columns_by_rule;
  for (const ColumnData& column : data.columns) {
    std::vector<std::string> parts;
    if (!column.split.empty()) parts.push_back(cat("split ", column.split));
    if (!column.final_rule.empty()) parts.push_back(cat("final value: ", column.final_rule));
    if (!column.meaning.empty()) parts.push_back(column.meaning);
    if (!parts.empty()) columns_by_rule[join(parts)].push_back(column.name);
  }
  for (const auto& [rule, columns] : columns_by_rule) {
    out.push_back(cat(join(columns), ": ", rule, "."));
  }
}

void add_protocol_sentences(const std::vector<ColumnView>& views, std::vector<std::string>& out) {
  std::map<std::string, std::vector<std::string>> columns_by_protocol;
  for (const ColumnView& view : views) {
    if (view.column.kind != ColumnKind::Bench) continue;
    for (const CellData& cell : view.cells) {
      if (cell.values.empty() || cell.protocol.empty()) continue;
      columns_by_protocol[cell.protocol].push_back(view.column.name);
      break;  // one protocol a column: build_table() refuses a mixture
    }
  }
  for (const auto& [protocol, columns] : columns_by_protocol) {
    out.push_back(cat(join(columns), ": measured alone under protocol ", protocol, "."));
  }
}

/// The sources of published rows, each with what is noted about its rows.
void add_paper_sentence(const std::vector<PaperRow>& papers, std::vector<std::string>& out) {
  if (papers.empty()) return;
  std::vector<std::string> sources;
  std::map<std::string, std::vector<std::string>> notes;
  for (const PaperRow& paper : papers) {
    add_once(sources, paper.source);
    if (!paper.note.empty()) add_once(notes[paper.source], paper.note);
  }
  std::vector<std::string> parts;
  for (const std::string& source : sources) {
    const std::vector<std::string>& known = notes[source];
    parts.push_back(known.empty() ? source : cat(source, " (", join(known, "; "), ")"));
  }
  out.push_back(cat("Rows without a number (in italics) are printed in papers, not ours: ",
                    join(parts, "; "), "."));
}

void add_origin_sentences(const TableData& data, std::vector<std::string>& out) {
  std::set<std::string> toolchains;
  for (const RowData& row : data.rows) {
    toolchains.insert(row.toolchains.begin(), row.toolchains.end());
  }
  if (!toolchains.empty()) {
    out.push_back(
        cat(toolchains.size() == 1 ? "Toolchain: " : "Toolchains: ", join(toolchains, "; "), "."));
  }
  add_paper_sentence(data.papers, out);
}

std::string detectable_text(const TableSpec& spec, const ColumnView& view) {
  const ColumnAnalysis& a = view.analysis;
  std::string text = cat(view.column.name, ": minimum detectable difference ",
                         format_fixed(*a.detectable, decimals_for_spread(*a.detectable)),
                         " (power ", spec.power, ", two-sided α = ", spec.alpha, ", ",
                         correction_text(spec, a.family), ", n = ", a.detectable_pairs);
  if (a.model) text += cat(", df = ", a.model->df);
  text += ")";
  if (a.model && !a.model->complete) {
    text += cat("; incomplete blocks: least squares over ", a.model->observations, " of ",
                a.model->variants * a.model->blocks, " runs");
  }
  return text + ".";
}

/// "a, b, c and 7 others".
std::string capped_list(const std::vector<std::string>& names) {
  if (names.size() <= kMostNamed) return join(names);
  const std::vector<std::string> first(names.begin(),
                                       names.begin() + static_cast<std::ptrdiff_t>(kMostNamed));
  return cat(join(first), " and ", names.size() - kMostNamed, " others");
}

/// "2 more seeds decide row 4 (...)" for the undecided rows of the column, the cheapest first; ""
/// without any.
std::string top_up_text(const TableData& data, const ColumnView& view) {
  std::map<std::size_t, std::vector<std::string>> rows_by_seeds;
  std::vector<std::string> hopeless;
  for (std::size_t row = 0; row < data.rows.size(); ++row) {
    const Comparison& c = view.analysis.comparisons[row];
    if (c.decision != Decision::Undecided) continue;
    (c.more_seeds ? rows_by_seeds[*c.more_seeds] : hopeless).push_back(row_name(data, row));
  }
  std::vector<std::string> parts;
  for (const auto& [seeds, rows] : rows_by_seeds) {
    if (parts.size() == kMostNamed) break;
    parts.push_back(
        cat(seeds, seeds == 1 ? " more seed decides " : " more seeds decide ", capped_list(rows)));
  }
  if (!hopeless.empty()) {
    parts.push_back(
        cat("more than ", kMostSeeds, " more seeds would be needed for ", capped_list(hopeless)));
  }
  if (parts.empty()) return "";
  return cat(view.column.name, ", if the differences stay as they are: ", join(parts, "; "), ".");
}

template <typename T>
void add_mixture(const std::vector<T>& row, const std::vector<T>& baseline, std::string_view what,
                 std::vector<std::string>& out) {
  if (row.size() > 1) {
    out.push_back(cat("mixes ", what, ": ", join(row, "; ")));
  } else if (!row.empty() && !baseline.empty() && row != baseline) {
    out.push_back(
        cat(what, " differ from the baseline's: ", join(row), " against ", join(baseline)));
  }
}

}  // namespace

std::vector<std::string> caption_of(const TableSpec& spec, const TableData& data,
                                    const std::vector<ColumnView>& views, std::size_t baseline) {
  std::vector<std::string> sentences;
  add_test_sentences(spec, data, views, baseline, sentences);
  add_rule_sentences(data, sentences);
  add_protocol_sentences(views, sentences);
  add_origin_sentences(data, sentences);
  return sentences;
}

std::vector<std::string> findings_of(const TableSpec& spec, const TableData& data,
                                     const std::vector<ColumnView>& views) {
  std::vector<std::string> lines;
  for (const ColumnView& view : views) {
    if (view.analysis.detectable) lines.push_back(detectable_text(spec, view));
    const std::string top_up = top_up_text(data, view);
    if (!top_up.empty()) lines.push_back(top_up);
  }
  return lines;
}

std::vector<std::string> row_notes(const RowData& row, const RowData& baseline) {
  std::vector<std::string> notes;
  if (row.images_seen && baseline.images_seen && *baseline.images_seen > 0) {
    const double ratio = *row.images_seen / *baseline.images_seen;
    if (std::abs(ratio - 1) > kImagesTolerance) {
      notes.push_back(cat("saw ", format_fixed(ratio, decimals_for_value(ratio, 3)),
                          " times as many images as the baseline (",
                          format_fixed(*row.images_seen, 0), " against ",
                          format_fixed(*baseline.images_seen, 0), ")"));
    }
  }
  add_mixture(row.toolchains, baseline.toolchains, "toolchains", notes);
  add_mixture(row.world_sizes, baseline.world_sizes, "world sizes", notes);
  add_mixture(row.precisions, baseline.precisions, "precisions", notes);
  notes.insert(notes.end(), row.notes.begin(), row.notes.end());
  return notes;
}

std::vector<Statistic> column_statistics(const ColumnView& view) {
  const ColumnAnalysis& a = view.analysis;
  std::vector<Statistic> result;
  if (a.tested) result.push_back({"family", cat(a.family)});
  if (a.detectable) {
    result.push_back({"minimum_detectable_difference", full_precision(*a.detectable)});
  }
  if (a.model && a.model->df > 0) {
    result.push_back({"residual_sd", full_precision(a.model->residual_sd)});
    result.push_back({"residual_df", full_precision(a.model->df)});
  }
  return result;
}

}  // namespace ablate
