#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace ablate {

/// The tests a table can use against its baseline.
enum class TestKind : std::uint8_t { Blocked, PairedT, Welch, Wilcoxon };

/// The smallest two-sided p that any data of `pairs` pairs could give: 0 for t tests from two pairs
/// on, 2 / 2^n for Wilcoxon's test from kWilcoxonPairs on; 1 where the test has no answer at all.
double smallest_attainable_p(TestKind test, std::size_t pairs);

/// The fewest pairs at which the test can reach p <= alpha at all.
std::size_t seeds_to_attain(TestKind test, double alpha);

/// How precision grows with the number of seeds: se(n) = sd / sqrt(n), df(n) = df_per_seed (n - 1).
/// - blocked model over k variants: sd = residual sd * sqrt(2), df_per_seed = k - 1;
/// - paired t: sd of the differences, 1;
/// - Welch: sqrt(sa^2 + sb^2), (sa^2 + sb^2)^2 / (sa^4 + sb^4).
struct Precision {
  double sd = 0;
  double df_per_seed = 1;
};
Precision welch_precision(double sd_a, double sd_b);

/// Power of the two-sided t test at level alpha when estimate / se has the given expectation.
double t_power(double noncentrality, double df, double alpha);

/// The true difference that the two-sided t test at level alpha finds with the given power
/// (noncentral t). 0 when se is 0.
double minimum_detectable_difference(double se, double df, double alpha, double power = 0.8);

/// The fewest seeds (at least 2) at which a true difference of this size is found with the given
/// power; none above `most`.
std::optional<std::size_t> seeds_to_decide(double difference, const Precision& precision,
                                           double alpha, double power = 0.8,
                                           std::size_t most = 1000);

}  // namespace ablate
