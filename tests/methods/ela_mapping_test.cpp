#include "methods/ela_mapping.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/random.h"

namespace ablate::methods::ela {
namespace {

std::vector<LayerMoments> layers_of(const std::vector<double>& divergences) {
  std::vector<LayerMoments> layers;
  for (const double d : divergences) {
    const double z = -std::expm1(-d);
    layers.push_back({.mean = d, .square = d * d, .bounded = z, .bounded_square = z * z});
  }
  return layers;
}

const std::vector<double> kEight{.010, .030, .020, .200, .050, .045, 1.2, 6.0};

MappingSettings at_quantile(double q) { return {.limit = q}; }

std::vector<int> flagged(const Mapping& mapping) {
  std::vector<int> numbers;
  for (std::size_t i = 0; i < mapping.flagged.size(); ++i) {
    if (mapping.flagged[i]) numbers.push_back(static_cast<int>(i) + 1);
  }
  return numbers;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-9) << i;
}

TEST(ElaMapping, EightLayersByHand) {
  const Mapping mapping = map_divergences(at_quantile(0.4), layers_of(kEight));
  ASSERT_TRUE(mapping.decides);
  // The median is 0.0475, so z = 1 - 2^(-D / 0.0475), cut off at 1 - 1e-4.
  expect_near(mapping.z, {.135778107, .354530401, .253120519, .945986132, .517912001, .481422478,
                          .9999, .9999});
  EXPECT_NEAR(mapping.fit.alpha, 0.7444238146, 1e-9);
  EXPECT_NEAR(mapping.fit.beta, 0.5257750694, 1e-9);
  expect_near(mapping.score, {.135652629, .292684662, .221756808, .821309898, .408014925,
                              .381767591, .993493960, .993493960});
}

TEST(ElaMapping, QuantilesOfTheEightLayers) {
  struct Row {
    double q, tau;
    std::vector<int> flagged;
  };
  const std::vector<Row> rows{
      {0.1, 0.0913411571, {}},           {0.2, 0.2225750694, {1}},
      {0.25, 0.2932838354, {1, 3}},      {0.3, 0.3650428762, {1, 2, 3}},
      {0.4, 0.5068319954, {1, 2, 3, 6}}, {0.5, 0.6399877611, {1, 2, 3, 5, 6}}};
  for (const Row& row : rows) {
    const Mapping mapping = map_divergences(at_quantile(row.q), layers_of(kEight));
    EXPECT_NEAR(mapping.tau, row.tau, 1e-9) << row.q;
    EXPECT_EQ(flagged(mapping), row.flagged) << row.q;
  }
}

TEST(ElaMapping, ThreeAndFiveLayersByHand) {
  const Mapping three =
      map_divergences(at_quantile(0.4), layers_of({0.5108256238, 0.1628054911, 1.3040057614}));
  expect_near(three.z, {0.5, 0.198213797, 0.829569138});
  EXPECT_NEAR(three.fit.alpha, 1.4052359986, 1e-8);
  EXPECT_NEAR(three.fit.beta, 1.3541271946, 1e-8);
  expect_near(three.score, {0.485722333, 0.143715376, 0.867713386});
  EXPECT_EQ(flagged(three), std::vector<int>{2});

  const Mapping five = map_divergences(at_quantile(0.3), layers_of({.05, .10, .20, .40, .80}));
  EXPECT_NEAR(five.fit.alpha, 1.0799979786, 1e-8);
  EXPECT_NEAR(five.fit.beta, 0.9658426853, 1e-8);
  EXPECT_NEAR(five.tau, 0.3371216037, 1e-9);
  EXPECT_EQ(flagged(five), (std::vector<int>{1, 2}));
}

TEST(ElaMapping, UpperQuantileOfALayerRisesWithItsNoise) {
  MappingSettings settings{.statistic = Statistic::Quantile, .source = Source::None, .limit = 0.1};
  const auto layer = [](double variance) {
    return LayerMoments{
        .mean = 0.05, .square = 1, .bounded = .05, .bounded_square = .05 * .05 + variance};
  };
  const Mapping mapping = map_divergences(settings, {layer(.0004), layer(.004), layer(0)});
  EXPECT_NEAR(mapping.score[0], 0.0767999197, 1e-9);
  EXPECT_NEAR(mapping.score[1], 0.1332192174, 1e-9);
  EXPECT_NEAR(mapping.score[2], 0.05, 1e-12) << "without noise, the value itself";
  EXPECT_EQ(flagged(mapping), (std::vector<int>{1, 3}));
}

TEST(ElaMapping, RanksAgainstABetaTargetFlagAFixedNumber) {
  const MappingSettings settings{
      .source = Source::Empirical, .beta_target = true, .target = {2, 5}, .limit = 0.2};
  const std::vector<double> nine{.9, .1, .5, .4, .3, 7, .2, .6, .8};
  // I(0.2; 2, 5) = 0.34464, and (3 - 1/2) / 9 < 0.34464 < (4 - 1/2) / 9.
  EXPECT_EQ(flagged(map_divergences(settings, layers_of(nine))), (std::vector<int>{2, 5, 7}));
}

TEST(ElaMapping, PlainThresholdAndSmallest) {
  const MappingSettings threshold{.source = Source::None, .limit = 0.045};
  EXPECT_EQ(flagged(map_divergences(threshold, layers_of(kEight))), (std::vector<int>{1, 2, 3, 6}));
  EXPECT_EQ(flagged(map_divergences(threshold, layers_of({0.045}))), (std::vector<int>{1}));
  const MappingSettings top{.source = Source::None, .rule = Rule::Smallest, .count = 2};
  EXPECT_EQ(flagged(map_divergences(top, layers_of(kEight))), (std::vector<int>{1, 3}));
}

/// Divergences over some decades, as saturated attention has them.
std::vector<double> random_divergences(std::uint64_t seed, std::size_t count) {
  RandomStream random(seed, Purpose::Test);
  std::vector<double> values;
  for (std::size_t i = 0; i < count; ++i) values.push_back(std::exp(3.0 * random.normal()));
  return values;
}

std::vector<MappingSettings> readings() {
  return {at_quantile(0.4),
          {.scale = Scale::None, .limit = 0.4},
          {.source = Source::Empirical, .beta_target = true, .limit = 0.2},
          {.source = Source::Beta, .beta_target = true, .limit = 0.2},
          {.source = Source::None, .limit = 0.5},
          {.source = Source::None, .rule = Rule::Smallest, .count = 4}};
}

// Scores rise with D, so whatever the reading, the flagged layers are those of smallest D.
TEST(ElaMapping, FlagsThoseOfSmallestDivergence) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const std::vector<double> d = random_divergences(seed, 11);
    for (const MappingSettings& settings : readings()) {
      const Mapping mapping = map_divergences(settings, layers_of(d));
      double highest_in = -1, lowest_out = std::numeric_limits<double>::infinity();
      for (std::size_t i = 0; i < d.size(); ++i) {
        if (mapping.flagged[i]) {
          highest_in = std::max(highest_in, d[i]);
        } else {
          lowest_out = std::min(lowest_out, d[i]);
        }
      }
      EXPECT_LE(highest_in, lowest_out);
    }
  }
}

TEST(ElaMapping, ScoreBelowTheQuantileIsBoundedValueBelowTau) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto layers = layers_of(random_divergences(seed, 12));
    std::vector<bool> before(layers.size());
    for (const double q : {0.1, 0.3, 0.5, 0.7}) {
      const Mapping mapping = map_divergences(at_quantile(q), layers);
      for (std::size_t i = 0; i < layers.size(); ++i) {
        EXPECT_EQ(mapping.score[i] <= q, mapping.z[i] <= mapping.tau);
        EXPECT_EQ(mapping.flagged[i], mapping.score[i] <= q);
        EXPECT_LE(before[i], mapping.flagged[i]) << "more with a larger q";
      }
      before = mapping.flagged;
    }
  }
}

TEST(ElaMapping, TauIsWhereTheScoreIsTheLimitUnderABetaTargetToo) {
  const MappingSettings settings{.source = Source::Beta, .beta_target = true, .limit = 0.2};
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Mapping mapping = map_divergences(settings, layers_of(random_divergences(seed, 12)));
    EXPECT_NEAR(settings.target.quantile(mapping.fit.cdf(mapping.tau)), 0.2, 1e-9);
    for (std::size_t i = 0; i < mapping.z.size(); ++i) {
      EXPECT_EQ(mapping.flagged[i], mapping.z[i] <= mapping.tau) << seed << " " << i;
    }
  }
}

TEST(ElaMapping, NeitherOrderNorUnitsMatter) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    std::vector<double> d = random_divergences(seed, 9);
    const Mapping mapping = map_divergences(at_quantile(0.4), layers_of(d));
    std::vector<double> scaled = d;
    for (double& value : scaled) value *= 8.0;
    EXPECT_EQ(map_divergences(at_quantile(0.4), layers_of(scaled)).flagged, mapping.flagged);
    std::vector<bool> turned = mapping.flagged;
    std::ranges::rotate(d, d.begin() + 4);
    std::rotate(turned.begin(), turned.begin() + 4, turned.end());
    EXPECT_EQ(map_divergences(at_quantile(0.4), layers_of(d)).flagged, turned);
  }
}

// One saturated layer must not push all others to the same end.
TEST(ElaMapping, OneSaturatedLayerLeavesTheOthersApart) {
  const std::vector<double> d{.01, .02, .03, .04, 9.0};
  const Mapping mapping = map_divergences(at_quantile(0.4), layers_of(d));
  for (std::size_t i = 1; i < 4; ++i) EXPECT_GT(mapping.score[i] - mapping.score[i - 1], 0.05);
}

TEST(ElaMapping, DecidesNothingWhereLayersCannotBeToldApart) {
  for (const auto& d : std::vector<std::vector<double>>{
           {.2}, {.1, .3}, {.5, .5, .5, .5}, {0, 0, 0, .4}, {0, 0, 0}, {}}) {
    EXPECT_FALSE(map_divergences(at_quantile(0.4), layers_of(d)).decides) << d.size();
  }
}

TEST(ElaMapping, HysteresisSeparatesFlaggedFromClear) {
  MappingSettings settings = at_quantile(0.4);
  settings.hysteresis = 0.1;
  const Mapping mapping = map_divergences(settings, layers_of(kEight));
  EXPECT_FALSE(mapping.flagged[4]);  // 0.408 lies between 0.4 and 0.5
  EXPECT_FALSE(mapping.clear[4]);
  EXPECT_TRUE(mapping.clear[3]);
}

TEST(ElaMapping, RefusesWhatIsNoDivergence) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), -0.1, std::numeric_limits<double>::infinity()}) {
    EXPECT_THROW(map_divergences(at_quantile(0.4), layers_of({.1, bad, .3, .4})), Error) << bad;
  }
}

}  // namespace
}  // namespace ablate::methods::ela
