#include "results/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <boost/math/distributions/students_t.hpp>

#include "runner/core/error.h"

namespace ablate {
namespace {

/// P(T > t); also for the infinite t of an estimate without spread.
double upper_tail(double t, double df) {
  if (std::isinf(t)) return t > 0 ? 0 : 1;
  return boost::math::cdf(boost::math::complement(boost::math::students_t(df), t));
}

double two_sided(double t, double df) { return t == 0 ? 1 : 2 * upper_tail(std::abs(t), df); }

/// (estimate - null) / se, with 0/0 = 0.
double t_ratio(double distance, double se) {
  if (se > 0) return distance / se;
  if (distance == 0) return 0;
  return std::copysign(std::numeric_limits<double>::infinity(), distance);
}

Summary at_least_two(std::span<const double> values, const char* what) {
  const Summary summary = summarize(values);
  if (!summary.sd) throw Error(cat(what, " needs at least two values, has ", summary.n));
  return summary;
}

}  // namespace

Summary summarize(std::span<const double> values) {
  Summary result;
  result.n = values.size();
  if (values.empty()) return result;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  result.min = *low;
  result.max = *high;
  const double n = static_cast<double>(values.size());
  result.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  // The mean of equal numbers may be off by rounding, and a constant must have no spread.
  if (result.min == result.max) result.mean = result.min;
  if (values.size() < 2) return result;
  double squares = 0;
  for (const double value : values) squares += (value - result.mean) * (value - result.mean);
  result.sd = std::sqrt(squares / (n - 1));
  return result;
}

double t_critical(double df, double level) {
  ABLATE_CHECK(df > 0 && level > 0 && level < 1, "df ", df, ", level ", level);
  const boost::math::students_t distribution(df);
  return boost::math::quantile(boost::math::complement(distribution, (1 - level) / 2));
}

TTest t_test(double estimate, double se, double df, double level) {
  return t_test_with_critical(estimate, se, df, t_critical(df, level));
}

TTest t_test_with_critical(double estimate, double se, double df, double critical) {
  ABLATE_CHECK(df > 0 && se >= 0, "df ", df, ", se ", se);
  TTest test;
  test.estimate = estimate;
  test.se = se;
  test.df = df;
  test.t = t_ratio(estimate, se);
  test.p = two_sided(test.t, df);
  test.interval = {estimate - critical * se, estimate + critical * se};
  return test;
}

Interval mean_interval(std::span<const double> values, double level) {
  const Summary s = at_least_two(values, "an interval of a mean");
  const double n = static_cast<double>(s.n);
  return t_test(s.mean, *s.sd / std::sqrt(n), n - 1, level).interval;
}

TTest paired_t(std::span<const double> differences, double level) {
  const Summary s = at_least_two(differences, "a paired t test");
  const double n = static_cast<double>(s.n);
  return t_test(s.mean, *s.sd / std::sqrt(n), n - 1, level);
}

double paired_t_p(std::span<const double> differences) {
  const Summary s = at_least_two(differences, "a paired t test");
  const double n = static_cast<double>(s.n);
  return two_sided(t_ratio(s.mean, *s.sd / std::sqrt(n)), n - 1);
}

TTest welch_t(std::span<const double> a, std::span<const double> b, double level) {
  const Summary x = at_least_two(a, "Welch's t test");
  const Summary y = at_least_two(b, "Welch's t test");
  const double nx = static_cast<double>(x.n), ny = static_cast<double>(y.n);
  const double vx = *x.sd * *x.sd / nx, vy = *y.sd * *y.sd / ny;
  const double se = std::sqrt(vx + vy);
  const double df =
      se > 0 ? (vx + vy) * (vx + vy) / (vx * vx / (nx - 1) + vy * vy / (ny - 1)) : nx + ny - 2;
  return t_test(x.mean - y.mean, se, df, level);
}

std::vector<double> holm(std::span<const double> p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] < p[b]; });
  std::vector<double> adjusted(p.size());
  double running = 0;
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    const double scaled = static_cast<double>(p.size() - rank) * p[order[rank]];
    running = std::max(running, std::min(1.0, scaled));
    adjusted[order[rank]] = running;
  }
  return adjusted;
}

double no_worse_p(const TTest& difference, double margin, Better better) {
  ABLATE_CHECK(better != Better::Neither && margin > 0);
  const double gain = better == Better::Higher ? difference.estimate : -difference.estimate;
  return upper_tail(t_ratio(gain + margin, difference.se), difference.df);
}

double equal_p(const TTest& difference, double margin) {
  ABLATE_CHECK(margin > 0);
  const double above = t_ratio(difference.estimate + margin, difference.se);
  const double below = t_ratio(margin - difference.estimate, difference.se);
  return upper_tail(std::min(above, below), difference.df);
}

Claim decide_claim(const TTest& difference, std::size_t pairs, double margin, Better better,
                   double alpha) {
  if (pairs < kClaimSeeds) return Claim::Undecided;
  if (equal_p(difference, margin) <= alpha) return Claim::Equal;
  if (better != Better::Neither && no_worse_p(difference, margin, better) <= alpha) {
    return Claim::NoWorse;
  }
  return Claim::Undecided;
}

}  // namespace ablate
