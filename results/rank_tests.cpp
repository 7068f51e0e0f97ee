// The exact tests of results/statistics.h that count signs and ranks.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include <boost/math/distributions/binomial.hpp>

#include "results/statistics.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

/// Twice the mid-rank of each magnitude: integers also with ties.
std::vector<std::size_t> doubled_ranks(const std::vector<double>& magnitudes) {
  std::vector<std::size_t> order(magnitudes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](auto a, auto b) { return magnitudes[a] < magnitudes[b]; });
  std::vector<std::size_t> ranks(magnitudes.size());
  // Differences of rounded percentages tie on paper but not in their last bits.
  const double tolerance = 1e-9 * magnitudes[order.back()];
  for (std::size_t first = 0; first < order.size();) {
    std::size_t last = first;
    while (last + 1 < order.size() &&
           magnitudes[order[last + 1]] - magnitudes[order[first]] <= tolerance) {
      ++last;
    }
    for (std::size_t i = first; i <= last; ++i) ranks[order[i]] = first + last + 2;
    first = last + 1;
  }
  return ranks;
}

/// Null distribution of the sum of `weights` with fair random signs: P(sum of the chosen = s).
std::vector<double> sign_distribution(const std::vector<std::size_t>& weights) {
  std::vector<double> probability{1.0};
  for (const std::size_t weight : weights) {
    std::vector<double> next(probability.size() + weight, 0.0);
    for (std::size_t s = 0; s < probability.size(); ++s) {
      next[s] += 0.5 * probability[s];
      next[s + weight] += 0.5 * probability[s];
    }
    probability = std::move(next);
  }
  return probability;
}

std::vector<double> walsh_averages(const std::vector<double>& values) {
  std::vector<double> averages;
  averages.reserve(values.size() * (values.size() + 1) / 2);
  for (std::size_t i = 0; i < values.size(); ++i) {
    for (std::size_t j = i; j < values.size(); ++j) averages.push_back((values[i] + values[j]) / 2);
  }
  std::sort(averages.begin(), averages.end());
  return averages;
}

/// The q-th smallest and q-th largest Walsh average, q the smallest value with P(V <= q) at or
/// above half of 1 - level (at least 1).
Interval walsh_interval(const std::vector<double>& averages, std::size_t n, double level) {
  std::vector<std::size_t> ranks(n);
  std::iota(ranks.begin(), ranks.end(), std::size_t{1});
  const std::vector<double> probability = sign_distribution(ranks);
  std::size_t q = 0;
  double below = probability[0];
  while (below < (1 - level) / 2) below += probability[++q];
  q = std::max<std::size_t>(q, 1);
  return {averages[q - 1], averages[averages.size() - q]};
}

double median_of_sorted(const std::vector<double>& sorted) {
  const std::size_t n = sorted.size();
  return n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

}  // namespace

WilcoxonTest wilcoxon_signed_rank(std::span<const double> differences, double level) {
  std::vector<double> values, magnitudes;
  for (const double d : differences) {
    if (d == 0) continue;
    values.push_back(d);
    magnitudes.push_back(std::abs(d));
  }
  if (values.size() < kWilcoxonPairs) {
    throw Error(
        cat("Wilcoxon's signed rank test needs at least ", kWilcoxonPairs,
            " non-zero differences, has ", values.size(), ": its smallest two-sided p there is ",
            2 * std::pow(0.5, static_cast<double>(std::max<std::size_t>(1, values.size())))));
  }
  WilcoxonTest test;
  test.n = values.size();
  test.zeros = differences.size() - values.size();
  const std::vector<std::size_t> ranks = doubled_ranks(magnitudes);
  std::size_t positive = 0;
  for (std::size_t i = 0; i < values.size(); ++i) positive += values[i] > 0 ? ranks[i] : 0;
  test.v = static_cast<double>(positive) / 2;

  const std::vector<double> probability = sign_distribution(ranks);
  const auto at = probability.begin() + static_cast<std::ptrdiff_t>(positive);
  test.p_greater = std::min(1.0, std::accumulate(at, probability.end(), 0.0));
  test.p_less = std::min(1.0, std::accumulate(probability.begin(), at + 1, 0.0));
  test.p = std::min(1.0, 2 * std::min(test.p_greater, test.p_less));

  const std::vector<double> averages = walsh_averages(values);
  test.estimate = median_of_sorted(averages);
  test.interval = walsh_interval(averages, values.size(), level);
  return test;
}

SignTest sign_test(std::size_t b, std::size_t c) {
  SignTest test{.b = b, .c = c};
  if (b + c == 0) return test;
  const boost::math::binomial fair(static_cast<double>(b + c), 0.5);
  const double smaller = static_cast<double>(std::min(b, c));
  const double point = boost::math::pdf(fair, smaller);
  test.p = std::min(1.0, 2 * boost::math::cdf(fair, smaller));
  // With b = c both tails hold the middle point: half of it is taken off once.
  test.mid_p = b == c ? 1 - point / 2 : test.p - point;
  return test;
}

SignTest sign_test(std::span<const double> differences) {
  const auto above =
      std::count_if(differences.begin(), differences.end(), [](double d) { return d > 0; });
  const auto below =
      std::count_if(differences.begin(), differences.end(), [](double d) { return d < 0; });
  return sign_test(static_cast<std::size_t>(above), static_cast<std::size_t>(below));
}

SignTest mcnemar(std::span<const std::uint8_t> first, std::span<const std::uint8_t> second,
                 std::size_t items) {
  const std::size_t bytes = (items + 7) / 8;
  if (first.size() < bytes || second.size() < bytes) {
    throw Error(cat("McNemar's test over ", items, " items needs bitmaps of ", bytes,
                    " bytes, has ", first.size(), " and ", second.size()));
  }
  std::size_t b = 0, c = 0;
  for (std::size_t i = 0; i < bytes; ++i) {
    unsigned mask = 0xFF;
    if (i + 1 == bytes && items % 8 != 0) mask = (1U << (items % 8)) - 1;
    const unsigned x = first[i], y = second[i];
    b += static_cast<std::size_t>(std::popcount(x & ~y & mask));
    c += static_cast<std::size_t>(std::popcount(~x & y & mask));
  }
  return sign_test(b, c);
}

}  // namespace ablate
