#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "results/blocked_model.h"
#include "results/statistics.h"
#include "results/table_data.h"
#include "results/table_spec.h"

namespace ablate {

enum class Decision : std::uint8_t {
  NotCompared,   ///< the baseline itself, an untested column, or no common seed
  Differs,       ///< adjusted p <= alpha
  Undecided,     ///< the data do not tell; never "not significant"
  CannotDecide,  ///< no data of this many seeds could reach alpha
};

/// One row against the baseline in one tested column.
struct Comparison {
  Decision decision = Decision::NotCompared;
  std::size_t pairs = 0;             ///< seeds of both; the smaller side for Welch's test
  std::optional<double> difference;  ///< row - baseline
  std::optional<Interval> interval;
  std::optional<double> p, adjusted_p;
  std::optional<double> own_p;            ///< of the row's own paired t, not adjusted
  std::size_t seeds_needed = 0;           ///< CannotDecide: the fewest that could decide
  std::optional<std::size_t> more_seeds;  ///< Undecided: if the true difference is as observed
  std::optional<Claim> claim;             ///< where the column has a margin
};

/// Statistics of one column, before any text is made.
struct ColumnAnalysis {
  std::vector<Summary> summaries;       ///< by row
  std::vector<Comparison> comparisons;  ///< by row
  bool exact = false;                ///< a count, or no cell has any spread: differences are exact
  bool tested = false;               ///< comparisons hold tests
  std::size_t family = 0;            ///< comparisons that are corrected together
  std::optional<double> detectable;  ///< minimum detectable difference of the least precise row
  std::size_t detectable_pairs = 0;  ///< and the pairs of that row
  std::optional<BlockedModel> model;
};

/// More than this many further seeds are not worth a number.
inline constexpr std::size_t kMostSeeds = 100;

/// Compares every row with row `baseline` in one column. Timing and Bench columns and counts get
/// summaries only.
ColumnAnalysis analyze_column(const TableSpec& spec, const ColumnData& column,
                              std::span<const CellData> cells, std::size_t baseline);

}  // namespace ablate
