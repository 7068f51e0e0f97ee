#include "results/column_analysis.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "runner/core/error.h"

namespace ablate {
namespace {

/// Against the t test under normal noise (Hodges & Lehmann 1956).
constexpr double kWilcoxonEfficiency = 3 / std::numbers::pi;

std::vector<double> values_of(const CellData& cell) {
  std::vector<double> values;
  for (const SeedValue& v : cell.values) values.push_back(v.value);
  return values;
}

/// Row minus baseline over the seeds of both.
std::vector<double> paired_differences(const CellData& row, const CellData& baseline) {
  std::map<std::int64_t, double> reference;
  for (const SeedValue& v : baseline.values) reference[v.seed] = v.value;
  std::vector<double> differences;
  for (const SeedValue& v : row.values) {
    const auto found = reference.find(v.seed);
    if (found != reference.end()) differences.push_back(v.value - found->second);
  }
  return differences;
}

/// A comparison on its way: what correction, power and claims still need.
struct Draft {
  std::optional<TTest> t;   ///< for claims and detectable differences
  Precision precision;      ///< how t's standard error shrinks
  double attainable_p = 1;  ///< the smallest p that data of this shape could give
  bool compared = false;
};

BlockedModel fit_rows(std::span<const CellData> cells, std::size_t baseline, double level) {
  std::map<std::int64_t, std::size_t> blocks;
  std::vector<Observation> observations;
  for (std::size_t row = 0; row < cells.size(); ++row) {
    for (const SeedValue& v : cells[row].values) {
      const std::size_t block = blocks.emplace(v.seed, blocks.size()).first->second;
      observations.push_back({row, block, v.value});
    }
  }
  return fit_blocked_model(observations, cells.size(), baseline, level);
}

Draft compare_blocked(const BlockedModel& model, std::size_t row, Comparison& out) {
  const std::optional<Contrast>& contrast = model.contrasts[row];
  Draft draft;
  if (!contrast || contrast->pairs == 0) return draft;
  draft.compared = true;
  draft.t = contrast->test;
  draft.precision = {model.residual_sd * std::numbers::sqrt2,
                     static_cast<double>(model.variants) - 1};
  draft.attainable_p = model.df > 0 ? 0 : 1;
  out.pairs = contrast->pairs;
  out.difference = contrast->difference;
  return draft;
}

Draft compare_paired(TestKind test, const std::vector<double>& differences, double level,
                     Comparison& out) {
  Draft draft;
  if (differences.empty()) return draft;
  draft.compared = true;
  const Summary summary = summarize(differences);
  out.pairs = differences.size();
  out.difference = summary.mean;
  const auto nonzero = static_cast<std::size_t>(
      std::count_if(differences.begin(), differences.end(), [](double d) { return d != 0; }));
  draft.attainable_p =
      smallest_attainable_p(test, test == TestKind::Wilcoxon ? nonzero : differences.size());
  if (summary.sd) {
    draft.t = paired_t(differences, level);
    draft.precision = {*summary.sd, 1};
  }
  if (test == TestKind::Wilcoxon && nonzero >= kWilcoxonPairs) {
    const WilcoxonTest exact = wilcoxon_signed_rank(differences, level);
    out.difference = exact.estimate;
    out.interval = exact.interval;
    out.p = exact.p;
    draft.precision.sd /= std::sqrt(kWilcoxonEfficiency);
  }
  return draft;
}

Draft compare_welch(const CellData& row, const CellData& baseline, double level, Comparison& out) {
  Draft draft;
  const Summary a = summarize(values_of(row)), b = summarize(values_of(baseline));
  if (a.n == 0 || b.n == 0) return draft;
  draft.compared = true;
  out.pairs = std::min(a.n, b.n);
  out.difference = a.mean - b.mean;
  draft.attainable_p = smallest_attainable_p(TestKind::Welch, out.pairs);
  if (a.sd && b.sd) {
    draft.t = welch_t(values_of(row), values_of(baseline), level);
    draft.precision = welch_precision(*a.sd, *b.sd);
  }
  return draft;
}

std::vector<Draft> compare_rows(const TableSpec& spec, std::span<const CellData> cells,
                                std::size_t baseline, ColumnAnalysis& analysis) {
  const double level = 1 - spec.alpha;
  if (spec.test == TestKind::Blocked) analysis.model = fit_rows(cells, baseline, level);
  std::vector<Draft> drafts(cells.size());
  for (std::size_t row = 0; row < cells.size(); ++row) {
    if (row == baseline) continue;
    Comparison& out = analysis.comparisons[row];
    const std::vector<double> differences = paired_differences(cells[row], cells[baseline]);
    Draft& draft = drafts[row];
    if (spec.test == TestKind::Blocked) {
      draft = compare_blocked(*analysis.model, row, out);
    } else if (spec.test == TestKind::Welch) {
      draft = compare_welch(cells[row], cells[baseline], level, out);
    } else {
      draft = compare_paired(spec.test, differences, level, out);
    }
    if (draft.t && spec.test != TestKind::Wilcoxon) {
      out.interval = draft.t->interval;
      out.p = draft.t->p;
    }
    if (differences.size() >= 2) out.own_p = paired_t_p(differences);
    analysis.family += draft.compared ? 1 : 0;
  }
  return drafts;
}

/// Adjusted p within the column; rows without any p count as 1.
std::vector<double> adjusted(const TableSpec& spec, std::span<const double> p) {
  if (spec.correction == Correction::Holm) return holm(p);
  return {p.begin(), p.end()};
}

void decide(const TableSpec& spec, const std::vector<Draft>& drafts, ColumnAnalysis& analysis) {
  std::vector<std::size_t> rows;
  std::vector<double> observed, attainable;
  for (std::size_t row = 0; row < drafts.size(); ++row) {
    if (!drafts[row].compared) continue;
    rows.push_back(row);
    observed.push_back(analysis.comparisons[row].p.value_or(1));
    attainable.push_back(drafts[row].attainable_p);
  }
  const std::vector<double> p = adjusted(spec, observed), best = adjusted(spec, attainable);
  const double strictest = spec.strictest_alpha(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Comparison& out = analysis.comparisons[rows[i]];
    if (out.p) out.adjusted_p = p[i];
    if (best[i] > spec.alpha) {
      out.decision = Decision::CannotDecide;
      out.seeds_needed = std::max(seeds_to_attain(spec.test, strictest), out.pairs + 1);
      continue;
    }
    out.decision = out.p && p[i] <= spec.alpha ? Decision::Differs : Decision::Undecided;
    if (out.decision == Decision::Differs || !drafts[rows[i]].t) continue;
    const auto seeds = seeds_to_decide(*out.difference, drafts[rows[i]].precision, strictest,
                                       spec.power, out.pairs + kMostSeeds);
    if (seeds) {
      const std::size_t least = seeds_to_attain(spec.test, strictest);
      out.more_seeds = std::max({*seeds, least, out.pairs + 1}) - out.pairs;
    }
  }
}

/// Detectable difference of the least precise row: what holds for every row of the column.
void detect(const TableSpec& spec, const std::vector<Draft>& drafts, ColumnAnalysis& analysis) {
  const TTest* worst = nullptr;
  for (std::size_t row = 0; row < drafts.size(); ++row) {
    const std::optional<TTest>& t = drafts[row].t;
    if (!t || analysis.comparisons[row].decision == Decision::CannotDecide) continue;
    if (worst != nullptr && t->se <= worst->se) continue;
    worst = &*t;
    analysis.detectable_pairs = analysis.comparisons[row].pairs;
  }
  if (worst == nullptr || worst->se == 0) return;
  const double alpha = spec.strictest_alpha(analysis.family);
  const double efficiency = spec.test == TestKind::Wilcoxon ? kWilcoxonEfficiency : 1;
  analysis.detectable = minimum_detectable_difference(worst->se / std::sqrt(efficiency), worst->df,
                                                      alpha, spec.power);
}

bool without_spread(const ColumnData& column, const ColumnAnalysis& analysis) {
  if (column.count) return true;
  bool repeated = false;
  for (const Summary& s : analysis.summaries) {
    if (s.sd.value_or(0) > 0) return false;
    repeated = repeated || s.n > 1;
  }
  return repeated;
}

}  // namespace

ColumnAnalysis analyze_column(const TableSpec& spec, const ColumnData& column,
                              std::span<const CellData> cells, std::size_t baseline) {
  ABLATE_CHECK(baseline < cells.size());
  ColumnAnalysis analysis;
  for (const CellData& cell : cells) analysis.summaries.push_back(summarize(values_of(cell)));
  analysis.comparisons.resize(cells.size());
  analysis.exact = column.kind == ColumnKind::Deterministic && without_spread(column, analysis);
  analysis.tested = column.kind == ColumnKind::Deterministic && !analysis.exact;
  if (!analysis.tested) return analysis;

  const std::vector<Draft> drafts = compare_rows(spec, cells, baseline, analysis);
  decide(spec, drafts, analysis);
  detect(spec, drafts, analysis);
  if (const auto margin = spec.margin_of(column.name, column.unit)) {
    for (std::size_t row = 0; row < drafts.size(); ++row) {
      if (!drafts[row].compared) continue;
      Comparison& out = analysis.comparisons[row];
      out.claim = drafts[row].t ? decide_claim(*drafts[row].t, out.pairs, *margin, column.better)
                                : Claim::Undecided;
    }
  }
  return analysis;
}

}  // namespace ablate
