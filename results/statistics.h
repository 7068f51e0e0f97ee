#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "results/record.h"

namespace ablate {

struct Interval {
  double low = 0;
  double high = 0;
};

/// What a table cell shows of the values of one cell.
struct Summary {
  std::size_t n = 0;
  double mean = 0;           ///< 0 when n = 0
  std::optional<double> sd;  ///< sample standard deviation (n - 1); none below two values
  double min = 0, max = 0;
};

/// Two passes: a one-pass sd is wrong for large constants such as MACs.
Summary summarize(std::span<const double> values);

/// A t test of "estimate = 0": two-sided p and the interval that belongs to it.
struct TTest {
  double estimate = 0;
  double se = 0;
  double df = 0;
  double t = 0;  ///< infinite when se = 0 and the estimate is not
  double p = 1;
  Interval interval;
};

/// Half width of a two-sided interval in standard errors: Student's t quantile.
double t_critical(double df, double level = 0.95);

/// The t test of an estimate with standard error `se` on `df` degrees of freedom (> 0). Without any
/// spread (se = 0) p is 0, or 1 for an estimate of exactly 0.
TTest t_test(double estimate, double se, double df, double level = 0.95);

/// The same with t_critical(df, level) at hand, for many tests on the same degrees of freedom.
TTest t_test_with_critical(double estimate, double se, double df, double critical);

/// Interval of the mean. Throws Error below two values.
Interval mean_interval(std::span<const double> values, double level = 0.95);

/// Student's t of paired differences. Throws Error below two pairs.
TTest paired_t(std::span<const double> differences, double level = 0.95);

/// Its two-sided p alone.
double paired_t_p(std::span<const double> differences);

/// Welch's t of mean(a) - mean(b) with Satterthwaite's degrees of freedom. Throws Error below two
/// values on a side.
TTest welch_t(std::span<const double> a, std::span<const double> b, double level = 0.95);

/// Below this many pairs the two-sided exact p of Wilcoxon's test cannot reach 0.05.
inline constexpr std::size_t kWilcoxonPairs = 6;

struct WilcoxonTest {
  std::size_t n = 0;      ///< differences that are not zero
  std::size_t zeros = 0;  ///< left out, as Wilcoxon did
  double v = 0;           ///< sum of the ranks of the positive differences
  double p = 1;           ///< two-sided
  double p_greater = 1;   ///< against differences above zero
  double p_less = 1;
  double estimate = 0;  ///< Hodges-Lehmann: median of the Walsh averages
  Interval interval;    ///< from the Walsh averages (Hollander & Wolfe, section 3.3)
};

/// Wilcoxon's signed rank test with its exact conditional distribution (mid-ranks for ties; the
/// interval takes the distribution without ties). Throws Error below six non-zero differences.
WilcoxonTest wilcoxon_signed_rank(std::span<const double> differences, double level = 0.95);

/// Exact binomial test of `b` against `c` discordant pairs.
struct SignTest {
  std::size_t b = 0, c = 0;
  double p = 1;      ///< two-sided, exact conditional
  double mid_p = 1;  ///< less conservative (Fagerland, Lydersen & Laake 2013)
};
SignTest sign_test(std::size_t b, std::size_t c);

/// Sign test of paired differences: b above zero, c below.
SignTest sign_test(std::span<const double> differences);

/// McNemar's exact test from two bitmaps over the same `items`, item i in bit i % 8 of byte i / 8
/// (1 = right): b items only `first` has right, c only `second`. It speaks about these two
/// checkpoints alone and is never pooled over seeds. Throws Error when a bitmap is too short.
SignTest mcnemar(std::span<const std::uint8_t> first, std::span<const std::uint8_t> second,
                 std::size_t items);

/// Holm's step-down adjusted p values, in the order given.
std::vector<double> holm(std::span<const double> p);

/// Claims about small differences need this many pairs.
inline constexpr std::size_t kClaimSeeds = 5;

/// What can be claimed about a row against the baseline, beyond "differs".
enum class Claim : std::uint8_t { Undecided, NoWorse, Equal };

/// One-sided p of the null "worse than the baseline by `margin` or more" (non-inferiority).
double no_worse_p(const TTest& difference, double margin, Better better);

/// p of the two one-sided tests (TOST) of the null "differs by `margin` or more".
double equal_p(const TTest& difference, double margin);

/// Equal (TOST), else NoWorse, else Undecided, each at level `alpha`; always Undecided below
/// kClaimSeeds pairs. A metric without a better direction can only be Equal.
Claim decide_claim(const TTest& difference, std::size_t pairs, double margin, Better better,
                   double alpha = 0.05);

}  // namespace ablate
