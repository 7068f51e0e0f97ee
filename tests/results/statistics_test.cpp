#include "results/statistics.h"

#include <bit>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "results/power.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

// Student's sleep data (R: datasets::sleep), the extra hours of sleep under two drugs.
const std::vector<double> kSleep1 = {0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0};
const std::vector<double> kSleep2 = {1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4};
// Hollander & Wolfe (1973), p. 29: Hamilton depression factor before and after (R: ?wilcox.test).
const std::vector<double> kBefore = {1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30};
const std::vector<double> kAfter = {0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29};

std::vector<double> minus(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> result;
  for (std::size_t i = 0; i < a.size(); ++i) result.push_back(a[i] - b[i]);
  return result;
}

TEST(Summary, UsesTheSampleStandardDeviation) {
  const Summary s = summarize(std::vector<double>{2, 4, 4, 4, 5, 5, 7, 9});
  EXPECT_EQ(s.n, 8U);
  EXPECT_DOUBLE_EQ(s.mean, 5);
  EXPECT_DOUBLE_EQ(*s.sd, std::sqrt(32.0 / 7));
  EXPECT_EQ(s.min, 2);
  EXPECT_EQ(s.max, 9);
}

TEST(Summary, LargeConstantsHaveNoSpread) {
  EXPECT_EQ(*summarize(std::vector<double>(3, 1.0827e15 + 0.1)).sd, 0);
  EXPECT_EQ(*summarize(std::vector<double>(3, 0.1)).sd, 0);
}

TEST(Summary, OneValueHasNoSd) {
  EXPECT_FALSE(summarize(std::vector<double>{3.0}).sd.has_value());
  EXPECT_EQ(summarize({}).n, 0U);
}

TEST(TTests, MeanIntervalOfTheSleepData) {  // R: t.test(extra[group == 1])
  const Interval interval = mean_interval(kSleep1);
  EXPECT_NEAR(interval.low, -0.5297804, 1e-7);
  EXPECT_NEAR(interval.high, 2.0297804, 1e-7);
}

TEST(TTests, PairedTOfTheSleepData) {  // R: t.test(extra ~ group, paired = TRUE)
  const TTest test = paired_t(minus(kSleep1, kSleep2));
  EXPECT_NEAR(test.t, -4.0621, 5e-5);
  EXPECT_EQ(test.df, 9);
  EXPECT_NEAR(test.p, 0.002833, 5e-7);
  EXPECT_NEAR(test.estimate, -1.58, 1e-12);
  EXPECT_NEAR(test.interval.low, -2.4598858, 5e-8);
  EXPECT_NEAR(test.interval.high, -0.7001142, 5e-8);
}

TEST(TTests, WelchOfTheSleepData) {  // R: t.test(extra ~ group)
  const TTest test = welch_t(kSleep1, kSleep2);
  EXPECT_NEAR(test.t, -1.8608, 5e-5);
  EXPECT_NEAR(test.df, 17.776, 5e-4);
  EXPECT_NEAR(test.p, 0.07939, 5e-6);
  EXPECT_NEAR(test.interval.low, -3.3654832, 5e-8);
  EXPECT_NEAR(test.interval.high, 0.2054832, 5e-8);
}

TEST(TTests, AreRefusedBelowTwoValues) {
  const std::vector<double> one = {1.0}, two = {1.0, 2.0};
  EXPECT_THROW(mean_interval(one), Error);
  EXPECT_THROW(paired_t(one), Error);
  EXPECT_THROW(welch_t(one, two), Error);
  EXPECT_THROW(welch_t(two, {}), Error);
}

TEST(TTests, WithoutSpreadOnlyZeroIsCompatibleWithZero) {
  const TTest differs = paired_t(std::vector<double>{2, 2, 2});
  EXPECT_EQ(differs.p, 0);
  EXPECT_EQ(differs.interval.low, 2);
  EXPECT_EQ(differs.interval.high, 2);
  EXPECT_EQ(paired_t(std::vector<double>{0, 0, 0}).p, 1);
}

TEST(TTests, ThreePairsNeedTwoAndAHalfSd) {
  // |mean| > 2.5 sd at n = 3, 4.4 sd at a third of alpha, 7.7 sd at a ninth.
  for (const auto& [ratio, alpha] : {std::pair{2.49, 0.05}, {4.42, 0.05 / 3}, {7.72, 0.05 / 9}}) {
    EXPECT_LT(paired_t(std::vector<double>{ratio - 1, ratio, ratio + 1}).p, alpha);
    EXPECT_GT(paired_t(std::vector<double>{ratio - 1.02, ratio - 0.02, ratio + 0.98}).p, alpha);
  }
}

TEST(Wilcoxon, HollanderWolfeDepressionData) {
  const WilcoxonTest test = wilcoxon_signed_rank(minus(kBefore, kAfter));
  EXPECT_EQ(test.n, 9U);
  EXPECT_EQ(test.v, 40);
  EXPECT_NEAR(test.p_greater, 0.01953125, 1e-12);
  EXPECT_NEAR(test.p, 0.0390625, 1e-12);
  EXPECT_NEAR(test.estimate, 0.46, 1e-12);  // R: wilcox.test(..., conf.int = TRUE)
  EXPECT_NEAR(test.interval.low, 0.010, 1e-12);
  EXPECT_NEAR(test.interval.high, 0.786, 1e-12);
}

TEST(Wilcoxon, IsRefusedBelowSixPairs) {
  try {
    wilcoxon_signed_rank(std::vector<double>{1, 2, 3});
    FAIL() << "three pairs were accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("0.25"), std::string::npos) << error.what();
  }
  EXPECT_THROW(wilcoxon_signed_rank(std::vector<double>{1, 2, 3, 4, 5, 0}), Error);
  EXPECT_EQ(wilcoxon_signed_rank(std::vector<double>{1, 2, 3, 4, 5, 6}).p, 2.0 / 64);
}

TEST(Wilcoxon, TiesAreExactByEnumerationOfAllSigns) {
  const std::vector<double> d = {1, -1, 2, 2, -2, 3, 5, 0};
  const std::vector<double> rank = {1.5, 1.5, 4, 4, 4, 6, 7};  // mid-ranks, the zero left out
  const double observed = 1.5 + 4 + 4 + 6 + 7;
  int at_least = 0, at_most = 0;
  for (unsigned signs = 0; signs < 128; ++signs) {
    double v = 0;
    for (unsigned i = 0; i < 7; ++i) v += (signs >> i) & 1U ? rank[i] : 0;
    at_least += v >= observed;
    at_most += v <= observed;
  }
  const WilcoxonTest test = wilcoxon_signed_rank(d);
  EXPECT_EQ(test.v, observed);
  EXPECT_EQ(test.zeros, 1U);
  EXPECT_DOUBLE_EQ(test.p_greater, at_least / 128.0);
  EXPECT_DOUBLE_EQ(test.p_less, at_most / 128.0);
}

TEST(Wilcoxon, RoundedPercentagesTie) {
  // 71.3 - 71.1 and 0.5 - 0.3 differ in their last bits alone.
  const std::vector<double> d = {71.3 - 71.1, 0.3 - 0.5, 1, 2, 3, 4};
  ASSERT_NE(d[0], -d[1]);
  EXPECT_EQ(wilcoxon_signed_rank(d).v, 1.5 + 3 + 4 + 5 + 6);
}

TEST(SignTests, ExactBinomial) {  // R: binom.test(2, 10)
  EXPECT_NEAR(sign_test(2, 8).p, 0.109375, 1e-12);
  EXPECT_EQ(sign_test(0, 0).p, 1);
  EXPECT_EQ(sign_test(std::vector<double>{1, 2, -3, 0}).b, 2U);
  EXPECT_EQ(sign_test(std::vector<double>{1, 2, -3, 0}).c, 1U);
}

TEST(SignTests, McNemarOfFagerland2013) {  // airway hyper-responsiveness, b = 1, c = 7
  const SignTest test = sign_test(1, 7);
  EXPECT_NEAR(test.p, 0.0703125, 1e-12);
  EXPECT_NEAR(test.mid_p, 0.0390625, 1e-12);
  EXPECT_NEAR(sign_test(2, 2).mid_p, 1 - 0.375 / 2, 1e-12);
}

TEST(SignTests, McNemarCountsBitsAndIgnoresTheTail) {
  const std::vector<std::uint8_t> first = {0b10110010, 0b11111101};
  const std::vector<std::uint8_t> second = {0b11010010, 0b00000100};
  // Ten items: bits 0-7 of byte 0, bits 0-1 of byte 1; the tail of both is garbage.
  const SignTest test = mcnemar(first, second, 10);
  EXPECT_EQ(test.b, 2U);
  EXPECT_EQ(test.c, 1U);
  EXPECT_EQ(test.p, 1);
  EXPECT_THROW(mcnemar(first, second, 17), Error);
}

TEST(Holm, MatchesRsPAdjust) {  // R: p.adjust(c(...), "holm")
  const std::vector<double> adjusted = holm(std::vector<double>{0.01, 0.02, 0.03, 0.04, 0.05});
  const std::vector<double> expected = {0.05, 0.08, 0.09, 0.09, 0.09};
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(adjusted[i], expected[i], 1e-12);
  const std::vector<double> mixed = holm(std::vector<double>{0.6, 0.001, 0.02});
  EXPECT_NEAR(mixed[0], 0.6, 1e-12);
  EXPECT_NEAR(mixed[1], 0.003, 1e-12);
  EXPECT_NEAR(mixed[2], 0.04, 1e-12);
  EXPECT_TRUE(holm({}).empty());
}

TEST(Holm, SasMulttestExample) {
  // SAS/STAT, PROC MULTTEST, "Inputting Raw p-Values": column Stepdown Bonferroni.
  const std::vector<double> raw = {0.28282, 0.30688, 0.71022, 0.77175, 0.78180, 0.88581,
                                   0.54685, 0.84978, 0.24228, 0.58977, 0.03498, 0.41607,
                                   0.31631, 0.05254, 0.45061, 0.75758, 0.12496, 0.49485,
                                   0.21572, 0.50505, 0.94372, 0.81260, 0.77596, 0.36889};
  const std::vector<double> adjusted = holm(raw);
  for (std::size_t i = 0; i < raw.size(); ++i) {
    EXPECT_NEAR(adjusted[i], i == 10 ? 0.8395 : 1.0, 5e-5) << "test " << i + 1;
  }
}

TEST(Claims, WellekBioequivalence) {
  // Wellek (2003), p. 212, as analysed in SAS/STAT, PROC TTEST, "Equivalence Testing with Lognormal
  // Data": geometric mean ratio of two drugs against the limits 0.8 and 1.25.
  const std::vector<double> test = {103.4, 59.92, 68.17, 94.54, 69.48, 72.17,
                                    74.37, 84.44, 96.74, 94.26, 48.52, 95.68};
  const std::vector<double> reference = {90.11, 77.71, 77.71, 97.51, 58.21, 101.3,
                                         79.84, 96.06, 89.30, 97.22, 61.62, 85.80};
  std::vector<double> log_ratio;
  for (std::size_t i = 0; i < test.size(); ++i) {
    log_ratio.push_back(std::log(test[i] / reference[i]));
  }
  const TTest difference = paired_t(log_ratio, 0.90);
  EXPECT_NEAR(std::exp(difference.estimate), 0.9412, 5e-5);
  EXPECT_NEAR(std::exp(difference.interval.low), 0.8634, 5e-5);
  EXPECT_NEAR(std::exp(difference.interval.high), 1.0260, 5e-5);
  const double margin = std::log(1.25);
  EXPECT_NEAR(no_worse_p(difference, margin, Better::Higher), 0.0031, 5e-5);  // t = 3.38
  EXPECT_LT(no_worse_p(difference, margin, Better::Lower), 0.0001);           // t = -5.90
  EXPECT_NEAR(equal_p(difference, margin), 0.0031, 5e-5);                     // "Overall"
  EXPECT_EQ(decide_claim(difference, 12, margin, Better::Higher), Claim::Equal);
}

TEST(Claims, EqualIffTheNinetyPercentIntervalIsInsideTheMargin) {
  for (const double estimate : {-0.6, -0.3, 0.0, 0.2, 0.31, 0.45}) {
    for (const double se : {0.02, 0.1, 0.11, 0.2}) {
      const TTest test = t_test(estimate, se, 8, 0.90);
      const bool inside = test.interval.low > -0.5 && test.interval.high < 0.5;
      EXPECT_EQ(equal_p(test, 0.5) < 0.05, inside) << estimate << " " << se;
      EXPECT_EQ(no_worse_p(test, 0.5, Better::Higher) < 0.05, test.interval.low > -0.5);
      EXPECT_EQ(no_worse_p(test, 0.5, Better::Lower) < 0.05, test.interval.high < 0.5);
    }
  }
}

TEST(Claims, NeedFiveSeeds) {
  const TTest tight = t_test(0.0, 0.01, 8);
  EXPECT_EQ(decide_claim(tight, 4, 0.5, Better::Higher), Claim::Undecided);
  EXPECT_EQ(decide_claim(tight, 5, 0.5, Better::Higher), Claim::Equal);
  EXPECT_EQ(decide_claim(t_test(2.0, 0.1, 8), 5, 0.5, Better::Higher), Claim::NoWorse);
  EXPECT_EQ(decide_claim(t_test(2.0, 0.1, 8), 5, 0.5, Better::Lower), Claim::Undecided);
  EXPECT_EQ(decide_claim(t_test(2.0, 0.1, 8), 5, 0.5, Better::Neither), Claim::Undecided);
  EXPECT_EQ(decide_claim(t_test(0.0, 0.0, 4), 5, 0.5, Better::Higher), Claim::Equal);
}

TEST(Power, PublishedSampleSizes) {
  // Cohen's d = 0.5, alpha 0.05, power 0.8: 34 for one sample, 64 in each of two (G*Power).
  EXPECT_EQ(seeds_to_decide(0.5, {.sd = 1, .df_per_seed = 1}, 0.05), 34U);
  EXPECT_EQ(seeds_to_decide(-0.5, {.sd = std::sqrt(2.0), .df_per_seed = 2}, 0.05), 64U);
  // R: power.t.test(n = 20, delta = 1, sd = 1).
  EXPECT_NEAR(t_power(std::sqrt(10.0), 38, 0.05), 0.8689528, 2e-6);
}

TEST(Power, DetectableDifferenceOfRsPowerTTest) {
  // R: power.t.test(power = .90, delta = 1) says n = 22.02110 in each of two groups of sd 1.
  const double n = 22.02110;
  EXPECT_NEAR(minimum_detectable_difference(std::sqrt(2 / n), 2 * (n - 1), 0.05, 0.90), 1, 1e-5);
}

TEST(Power, DetectableDifferences) {
  // Integrated numerically over the chi distribution (scipy.integrate.quad), power 0.8.
  EXPECT_NEAR(minimum_detectable_difference(1, 2, 0.05), 5.653489266, 1e-6);
  EXPECT_NEAR(minimum_detectable_difference(1, 2, 0.05 / 3), 9.816356492, 1e-6);
  EXPECT_NEAR(minimum_detectable_difference(1, 8, 0.05 / 4), 4.175483011, 1e-6);
  EXPECT_NEAR(minimum_detectable_difference(0.5, 40, 0.05), 2.871128361 / 2, 1e-6);
  EXPECT_NEAR(minimum_detectable_difference(1, 1, 0.05 / 9), 146.8568558, 1e-4);
  EXPECT_EQ(minimum_detectable_difference(0, 3, 0.05), 0);
}

TEST(Power, SeedsToDecideIsTheSmallest) {
  const Precision precision{.sd = 0.7, .df_per_seed = 3};
  const std::size_t n = *seeds_to_decide(0.4, precision, 0.01);
  const auto power_at = [&](double seeds) {
    return t_power(0.4 / (0.7 / std::sqrt(seeds)), 3 * (seeds - 1), 0.01);
  };
  EXPECT_GE(power_at(static_cast<double>(n)), 0.8);
  EXPECT_LT(power_at(static_cast<double>(n) - 1), 0.8);
  EXPECT_FALSE(seeds_to_decide(0, precision, 0.01).has_value());
  EXPECT_FALSE(seeds_to_decide(1e-4, precision, 0.01, 0.8, 100).has_value());
}

TEST(Power, WelchPrecisionOfEqualSpreads) {
  const Precision precision = welch_precision(3, 3);
  EXPECT_NEAR(precision.sd, 3 * std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(precision.df_per_seed, 2, 1e-12);
}

TEST(Power, SmallestAttainableP) {
  EXPECT_EQ(smallest_attainable_p(TestKind::Blocked, 1), 1);
  EXPECT_EQ(smallest_attainable_p(TestKind::Blocked, 2), 0);
  EXPECT_EQ(smallest_attainable_p(TestKind::Wilcoxon, 5), 1);
  EXPECT_EQ(smallest_attainable_p(TestKind::Wilcoxon, 6), 2.0 / 64);
  EXPECT_EQ(seeds_to_attain(TestKind::Wilcoxon, 0.05), 6U);
  EXPECT_EQ(seeds_to_attain(TestKind::Wilcoxon, 0.05 / 3), 7U);
  EXPECT_EQ(seeds_to_attain(TestKind::PairedT, 0.05), 2U);
}

}  // namespace
}  // namespace ablate
