#include "results/power.h"

#include <algorithm>
#include <cmath>

#include <boost/math/distributions/non_central_t.hpp>
#include <boost/math/distributions/normal.hpp>

#include "results/statistics.h"
#include "runner/core/error.h"

namespace ablate {

double smallest_attainable_p(TestKind test, std::size_t pairs) {
  if (test != TestKind::Wilcoxon) return pairs < 2 ? 1 : 0;
  if (pairs < kWilcoxonPairs) return 1;
  return 2 * std::pow(0.5, static_cast<double>(pairs));
}

std::size_t seeds_to_attain(TestKind test, double alpha) {
  ABLATE_CHECK(alpha > 0);
  std::size_t pairs = 1;
  while (smallest_attainable_p(test, pairs) > alpha) ++pairs;
  return pairs;
}

Precision welch_precision(double sd_a, double sd_b) {
  const double va = sd_a * sd_a, vb = sd_b * sd_b;
  if (va + vb == 0) return {0, 2};
  return {std::sqrt(va + vb), (va + vb) * (va + vb) / (va * va + vb * vb)};
}

double t_power(double noncentrality, double df, double alpha) {
  const double critical = t_critical(df, 1 - alpha);
  const boost::math::non_central_t shifted(df, std::abs(noncentrality));
  return boost::math::cdf(boost::math::complement(shifted, critical)) +
         boost::math::cdf(shifted, -critical);
}

double minimum_detectable_difference(double se, double df, double alpha, double power) {
  ABLATE_CHECK(df > 0 && alpha > 0 && power > alpha && power < 1);
  if (se == 0) return 0;
  double low = 0, high = 1;
  while (t_power(high, df, alpha) < power) high *= 2;
  for (int i = 0; i < 50 && high - low > 1e-9 * high; ++i) {
    const double middle = (low + high) / 2;
    (t_power(middle, df, alpha) < power ? low : high) = middle;
  }
  return high * se;
}

std::optional<std::size_t> seeds_to_decide(double difference, const Precision& precision,
                                           double alpha, double power, std::size_t most) {
  if (difference == 0 || most < 2) return std::nullopt;
  const auto decides = [&](std::size_t seeds) {
    const double n = static_cast<double>(seeds);
    const double se = precision.sd / std::sqrt(n);
    return se == 0 || t_power(difference / se, precision.df_per_seed * (n - 1), alpha) >= power;
  };
  // The normal approximation is a lower bound up to its far tail: walk from there.
  const boost::math::normal normal;
  const double quantiles = boost::math::quantile(boost::math::complement(normal, alpha / 2)) +
                           boost::math::quantile(normal, power);
  const double bound = std::pow(quantiles * precision.sd / difference, 2);
  if (bound > static_cast<double>(most) + 1) return std::nullopt;
  std::size_t seeds = std::max<std::size_t>(2, static_cast<std::size_t>(bound));
  while (seeds > 2 && decides(seeds - 1)) --seeds;
  while (seeds <= most && !decides(seeds)) ++seeds;
  return seeds <= most ? std::optional(seeds) : std::nullopt;
}

}  // namespace ablate
