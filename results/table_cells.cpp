#include "results/table_cells.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "results/number_format.h"
#include "runner/core/add_once.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

std::string seeds_text(const CellData& cell, bool over_seeds) {
  const std::size_t done = cell.values.size();
  if (cell.diverged + cell.missing == 0) return over_seeds ? " (" + std::to_string(done) + ")" : "";
  std::vector<std::string> reasons;
  if (cell.diverged > 0) reasons.push_back(cat(cell.diverged, " diverged"));
  if (cell.missing > 0) reasons.push_back(cat(cell.missing, " missing"));
  return cat(" ", done, "/", done + cell.diverged + cell.missing, " (", join(reasons), ")");
}

void value_statistics(const CellData& cell, const Summary& s, std::vector<Statistic>& out) {
  out.push_back({"n", std::to_string(s.n)});
  if (cell.diverged > 0) out.push_back({"diverged", std::to_string(cell.diverged)});
  if (cell.missing > 0) out.push_back({"missing", std::to_string(cell.missing)});
  if (s.n == 0) return;
  out.push_back({"mean", full_precision(s.mean)});
  if (s.sd) out.push_back({"sd", full_precision(*s.sd)});
  out.push_back({"min", full_precision(s.min)});
  out.push_back({"max", full_precision(s.max)});
  if (cell.spread) out.push_back({"spread", full_precision(*cell.spread)});
  if (!cell.protocol.empty()) out.push_back({"protocol", cell.protocol});
}

Cell value_cell(const ColumnView& view, std::size_t row, Notes& notes) {
  const CellData& data = view.cells[row];
  const Summary& s = view.analysis.summaries[row];
  Cell cell;
  value_statistics(data, s, cell.statistics);
  if (data.shared_device && view.column.kind == ColumnKind::Timing) {
    cell.text = "refused";
    cell.notes.push_back(notes.add("a run of this row shared its device: no training time"));
    return cell;
  }
  const bool varies = s.sd.value_or(0) > 0;
  const std::string seeds = seeds_text(data, view.over_seeds || varies);
  if (s.n == 0) {
    cell.text = "–" + seeds;
  } else if (varies) {
    cell.text = format_mean_sd(s.mean, *s.sd) + seeds;
  } else if (s.sd && view.over_seeds) {
    cell.text = cat(format_fixed(s.mean, view.decimals), " ± 0", seeds);
  } else if (data.spread && *data.spread > 0) {
    cell.text = format_mean_sd(s.mean, s.mean * *data.spread) + seeds;
  } else {
    cell.text = format_fixed(s.mean, view.decimals) + seeds;
  }
  if (s.n == 1 && view.over_seeds) {
    cell.notes.push_back(notes.add("one seed: nothing is known about the spread"));
  }
  return cell;
}

/// Relative change of an untested column.
Cell change_cell(const Summary& row, const Summary& baseline) {
  Cell cell;
  if (row.n == 0 || baseline.n == 0) return cell;
  cell.text = format_change(row.mean, baseline.mean);
  cell.statistics.push_back({"difference", full_precision(row.mean - baseline.mean)});
  if (baseline.mean != 0) {
    cell.statistics.push_back({"ratio", full_precision(row.mean / baseline.mean)});
  }
  return cell;
}

/// The same from measurements in turns with the baseline, which the row brings along. Two jobs at
/// different times would blame the machine's mood on the row.
Cell interleaved_change_cell(const CellData& row, Notes& notes) {
  const Summary ratio = summarize(row.ratios);
  return {format_change(ratio.mean, 1),
          {notes.add("change: measured in turns with the baseline, not the ratio of the figures")},
          {{"ratio", full_precision(ratio.mean)}}};
}

bool is_interleaved(const CellData& row, const CellData& baseline) {
  return !row.ratios.empty() && !baseline.structure.empty() && row.against == baseline.structure;
}

Cell delta_cell(const Comparison& c, int value_decimals) {
  Cell cell;
  if (!c.difference) return cell;
  cell.statistics.push_back({"difference", full_precision(*c.difference)});
  if (!c.interval) {
    cell.text = format_signed(*c.difference, value_decimals);
    return cell;
  }
  const double half = (c.interval->high - c.interval->low) / 2;
  const int decimals = half > 0 ? decimals_for_spread(half) : value_decimals;
  cell.text =
      cat(format_signed(*c.difference, decimals), " [", format_signed(c.interval->low, decimals),
          ", ", format_signed(c.interval->high, decimals), "]");
  cell.statistics.push_back({"low", full_precision(c.interval->low)});
  cell.statistics.push_back({"high", full_precision(c.interval->high)});
  return cell;
}

Cell p_cell(const Comparison& c) {
  Cell cell;
  if (c.p) cell.statistics.push_back({"p", full_precision(*c.p)});
  if (c.adjusted_p) cell.statistics.push_back({"p_adjusted", full_precision(*c.adjusted_p)});
  switch (c.decision) {
    case Decision::NotCompared:
      cell.text = "no common seed";
      cell.statistics.push_back({"decision", "not compared"});
      break;
    case Decision::Differs:
      cell.text = format_p(*c.adjusted_p);
      cell.statistics.push_back({"decision", "differs"});
      break;
    case Decision::Undecided:
      cell.text = (c.adjusted_p ? format_p(*c.adjusted_p) + " " : "") + "undecided";
      cell.statistics.push_back({"decision", "undecided"});
      break;
    case Decision::CannotDecide:
      cell.text = cat("cannot decide at n = ", c.pairs, "; needs ≥ ", c.seeds_needed, " seeds");
      cell.statistics.push_back({"decision", "cannot decide"});
      cell.statistics.push_back({"seeds_needed", std::to_string(c.seeds_needed)});
      break;
  }
  if (c.more_seeds) cell.statistics.push_back({"more_seeds", std::to_string(*c.more_seeds)});
  return cell;
}

std::string_view claim_name(Claim claim) {
  return claim == Claim::Equal ? "equal" : claim == Claim::NoWorse ? "no worse" : "undecided";
}

Cell claim_cell(const Comparison& c, Notes& notes) {
  Cell cell;
  if (!c.claim) return cell;
  cell.text = claim_name(*c.claim);
  cell.statistics.push_back({"claim", cell.text});
  if (c.pairs < kClaimSeeds) {
    cell.notes.push_back(notes.add(
        cat("claims of \"no worse\" and \"equal\" need at least ", kClaimSeeds, " seeds")));
  }
  return cell;
}

/// Enough decimals to tell the values of a column apart, from `decimals` on.
int distinguishing_decimals(const std::set<double>& values, int decimals) {
  for (int more = decimals; more < decimals + 5 && more <= 9; ++more) {
    std::set<std::string> texts;
    for (const double value : values) texts.insert(format_fixed(value, more));
    if (texts.size() == values.size()) return more;
  }
  return decimals;
}

/// Decimals of values without spread: those of their neighbours with spread, else about four
/// significant digits.
int column_decimals(const ColumnAnalysis& analysis) {
  std::set<double> means;
  int of_spread = -1;
  for (const Summary& s : analysis.summaries) {
    if (s.n > 0) means.insert(s.mean);
    if (s.sd.value_or(0) > 0) of_spread = std::max(of_spread, decimals_for_spread(*s.sd));
  }
  if (of_spread >= 0) return of_spread;
  const auto whole = [](double value) { return value == std::round(value); };
  if (std::all_of(means.begin(), means.end(), whole)) return 0;
  double smallest = 0, largest = 0;
  for (const double mean : means) {
    const double size = std::abs(mean);
    largest = std::max(largest, size);
    if (size > 0) smallest = smallest == 0 ? size : std::min(smallest, size);
  }
  const int decimals = std::max(decimals_for_value(largest, 4), decimals_for_value(smallest, 3));
  return analysis.exact ? distinguishing_decimals(means, decimals) : decimals;
}

/// Values first, then what compares them.
std::vector<RenderedColumn> columns_of(const ColumnView& view) {
  const std::string &name = view.column.name, &unit = view.column.unit;
  std::vector<RenderedColumn> result;
  const auto add = [&](std::string header, std::string_view of_unit, ColumnRole role) {
    result.push_back({name, std::move(header), std::string(of_unit), role, {}});
  };
  add(unit.empty() ? name : cat(name, " (", unit, ")"), unit, ColumnRole::Value);
  if (!view.analysis.tested) {
    add("Δ", unit, ColumnRole::Delta);
    return result;
  }
  add(cat("Δ [", (1 - view.spec.alpha) * 100, " % CI]"), unit, ColumnRole::Delta);
  add(view.spec.test == TestKind::Welch ? "n" : "pairs", "", ColumnRole::Pairs);
  add(view.spec.correction == Correction::Holm ? "p (Holm)" : "p", "", ColumnRole::P);
  if (view.spec.test != TestKind::PairedT) add("own t p", "", ColumnRole::OwnP);
  if (const auto margin = view.spec.margin_of(name, unit)) {
    add(cat("margin ", *margin), unit, ColumnRole::Claim);
  }
  return result;
}

Cell own_p_cell(const Comparison& c) {
  Cell cell;
  if (!c.own_p) return cell;
  cell.text = format_p(*c.own_p);
  cell.statistics.push_back({"own_p", full_precision(*c.own_p)});
  return cell;
}

Cell cell_of(const ColumnView& view, ColumnRole role, std::size_t row, Notes& notes) {
  if (role == ColumnRole::Value) return value_cell(view, row, notes);
  const ColumnAnalysis& analysis = view.analysis;
  if (row == view.baseline || analysis.summaries[row].n == 0) return {};
  const Comparison& c = analysis.comparisons[row];
  switch (role) {
    case ColumnRole::Delta:
      if (analysis.tested) return delta_cell(c, view.decimals);
      if (is_interleaved(view.cells[row], view.cells[view.baseline]))
        return interleaved_change_cell(view.cells[row], notes);
      return change_cell(analysis.summaries[row], analysis.summaries[view.baseline]);
    case ColumnRole::Pairs:
      return {std::to_string(c.pairs), {}, {{"pairs", std::to_string(c.pairs)}}};
    case ColumnRole::P:
      return p_cell(c);
    case ColumnRole::OwnP:
      return own_p_cell(c);
    default:
      return claim_cell(c, notes);
  }
}

}  // namespace

std::size_t Notes::add(const std::string& text) { return add_once(texts_, text); }

ColumnView::ColumnView(const TableSpec& table_spec, const ColumnData& column_data,
                       std::vector<CellData> column_cells, std::size_t baseline_row)
    : spec(table_spec),
      column(column_data),
      cells(std::move(column_cells)),
      baseline(baseline_row),
      analysis(analyze_column(spec, column, cells, baseline)),
      decimals(column_decimals(analysis)),
      over_seeds(analysis.tested || column.kind == ColumnKind::Timing),
      columns(columns_of(*this)) {}

std::vector<Cell> cells_of(const ColumnView& view, std::size_t row, Notes& notes) {
  std::vector<Cell> result;
  for (const RenderedColumn& part : view.columns) {
    result.push_back(cell_of(view, part.role, row, notes));
  }
  return result;
}

}  // namespace ablate
