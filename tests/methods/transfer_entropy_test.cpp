#include "methods/transfer_entropy.h"

#include <cmath>
#include <map>
#include <numbers>
#include <set>

#include <gtest/gtest.h>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "runner/core/random.h"
#include "tests/core/expect_error.h"
#include "tests/support/run_ranks.h"

namespace ablate {
namespace {

using test::message_of;

/// Independent columns N(channel mean, channel deviation), (n, d).
at::Tensor gaussian_features(std::int64_t n, std::int64_t d, double deviation_step) {
  at::Tensor features = at::empty({n, d}, at::kDouble);
  RandomStream random(5, Purpose::Test);
  for (std::int64_t i = 0; i < n * d; ++i) features.data_ptr<double>()[i] = random.normal();
  const at::Tensor channel = at::arange(d, at::kDouble);
  return features * (0.5 + deviation_step * channel) + channel;
}

GaussianEntropy statistics_of(const at::Tensor& features, std::int64_t chunk) {
  GaussianEntropy statistics;
  for (const at::Tensor& part : features.split(chunk)) {
    statistics.add(part, at::ones({part.size(0)}));
  }
  return statistics;
}

double entropy_of(const at::Tensor& features) {
  return statistics_of(features, features.size(0)).entropy(false, std::numbers::e);
}

TEST(GaussianEntropy, OfGaussiansIsTheSumOfLogDeviations) {
  constexpr std::int64_t kSamples = 20'000, kChannels = 24;
  const at::Tensor features = gaussian_features(kSamples, kChannels, 0.1);
  double expected = 0;
  for (int channel = 0; channel < kChannels; ++channel) expected += std::log(0.5 + 0.1 * channel);
  // Deviation of the estimate: sqrt(D / (2 n)).
  EXPECT_NEAR(entropy_of(features), expected, 4 * std::sqrt(kChannels / (2.0 * kSamples)));
}

TEST(GaussianEntropy, FollowsScaleAndIgnoresShiftAndOrder) {
  const at::Tensor features = gaussian_features(500, 7, 0.2);
  const double entropy = entropy_of(features);
  EXPECT_NEAR(entropy_of(features * -3 + 11), entropy + 7 * std::log(3.0), 1e-10);
  EXPECT_NEAR(entropy_of(features.flip(0)), entropy, 1e-10);
  EXPECT_NEAR(entropy_of(features.flip(1)), entropy, 1e-10);
  const at::Tensor doubled = at::cat({features, features.select(1, 3).unsqueeze(1)}, 1);
  EXPECT_NEAR(entropy_of(doubled) - entropy,
              std::log(features.select(1, 3).std(0, false).item<double>()), 1e-10);
}

// On uniform channels, whose true entropy is 0, the surrogate is ln(1 / sqrt(12)) less its
// dropped constants, ln(2 pi e) / 2: together 0.1765.
TEST(GaussianEntropy, IsASurrogateWithoutItsConstants) {
  const at::Tensor grid = (at::arange(100'000, at::kDouble) + 0.5) / 100'000;
  const double constants = 0.5 * std::log(2 * std::numbers::pi * std::numbers::e);
  EXPECT_NEAR(entropy_of(grid.unsqueeze(1)) + constants, 0.1765, 5e-5);
}

// However the samples are cut into chunks.
TEST(GaussianEntropy, OfChunksEqualsTwoPassesOverAll) {
  const at::Tensor features = gaussian_features(1003, 9, 0.3) + 1e4;
  for (const std::int64_t chunk : {1, 7, 128, 1003}) {
    const GaussianEntropy statistics = statistics_of(features, chunk);
    EXPECT_EQ(statistics.samples(), 1003);
    for (const bool unbiased : {false, true}) {
      const at::Tensor expected = features.std(0, unbiased);
      EXPECT_TRUE(at::allclose(statistics.deviations(unbiased), expected, 1e-10, 0)) << chunk;
    }
  }
  const double halves =
      (entropy_of(features.slice(0, 0, 501)) + entropy_of(features.slice(0, 501))) / 2;
  EXPECT_GT(std::abs(halves - entropy_of(features)), 1e-3) << "an average over batches is another";
}

TEST(GaussianEntropy, ReadOutsDifferByBaseAndDivisor) {
  const at::Tensor features = gaussian_features(50, 4, 0.3);
  const GaussianEntropy statistics = statistics_of(features, 50);
  EXPECT_NEAR(statistics.entropy(true, 2.0), features.std(0, true).log2().sum().item<double>(),
              1e-12);
  EXPECT_NEAR(statistics.entropy(false, std::numbers::e),
              features.std(0, false).log().sum().item<double>(), 1e-12);
}

TEST(GaussianEntropy, LeavesOutPadding) {
  const at::Tensor features = gaussian_features(6, 3, 0.3);
  GaussianEntropy statistics;
  statistics.add(features, at::tensor({1.F, 1.F, 0.F, 1.F, 0.F, 0.F}));
  statistics.add(features, at::zeros({6}));
  EXPECT_EQ(statistics.samples(), 3);
  const at::Tensor kept = features.index_select(0, at::tensor({0, 1, 3}, at::kLong));
  EXPECT_TRUE(at::allclose(statistics.deviations(true), kept.std(0, true), 1e-12, 0));
}

TEST(GaussianEntropy, NamesAConstantChannel) {
  at::Tensor features = gaussian_features(41, 5, 0.3);
  // Means of the latter two are rounded: their computed deviations are tiny, not 0.
  for (const double value : {2.5, 0.0, 0.1, -1e6 / 3}) {
    features.select(1, 3).fill_(value);
    for (const std::int64_t chunk : {1, 7, 41}) {
      const std::string message =
          message_of<Error>([&] { statistics_of(features, chunk).entropy(true, 2.0); });
      EXPECT_NE(message.find("channel 3 (of 5) is constant"), std::string::npos) << message;
    }
  }
  // The least that single precision can show: one step, in one sample.
  features.select(1, 3).fill_(1.0);
  features[7][3] = 1.0 + 0x1p-23;
  EXPECT_NO_THROW(statistics_of(features, 7).entropy(true, 2.0));
}

TEST(GaussianEntropy, NamesAChannelThatIsNoNumber) {
  for (const double value : {std::nan(""), HUGE_VAL}) {
    at::Tensor features = gaussian_features(10, 3, 0.3);
    features[4][1] = value;
    const std::string message =
        message_of<Error>([&] { statistics_of(features, 4).entropy(false, 2.0); });
    EXPECT_NE(message.find("channel 1 (of 3) is not finite over 10 samples"), std::string::npos)
        << message;
  }
}

TEST(GaussianEntropy, IsPooledOverRanksOfUnequalShares) {
  const at::Tensor features = gaussian_features(101, 6, 0.3);
  const double alone = entropy_of(features);
  for (const int size : {1, 2, 3, 5}) {
    std::vector<double> found(static_cast<std::size_t>(size));
    test::run_ranks(size, [&](Communicator& comm) {
      GaussianEntropy statistics;
      // Rank 0 has nothing unless it is alone; the others take every (size - 1)-th row.
      for (std::int64_t row = std::max(comm.rank() - 1, 0); row < 101;
           row += std::max(size - 1, 1)) {
        if (size > 1 && comm.rank() == 0) break;
        statistics.add(features.narrow(0, row, 1), at::ones({1}));
      }
      statistics.reduce(comm, at::kCPU);
      EXPECT_EQ(statistics.samples(), 101);
      found[static_cast<std::size_t>(comm.rank())] = statistics.entropy(false, std::numbers::e);
    });
    for (const double entropy : found) {
      EXPECT_EQ(entropy, found[0]) << "every rank must decide alike";
      EXPECT_NEAR(entropy, alone, 1e-10);
    }
  }
}

/// H of a set by rule, counting the calls.
struct Mock {
  std::function<double(const std::set<int>&)> rule;
  int calls = 0;

  double operator()(const std::vector<int>& skipped) {
    ++calls;
    EXPECT_TRUE(std::ranges::is_sorted(skipped));
    return rule({skipped.begin(), skipped.end()});
  }
};

std::vector<int> chosen(const std::vector<SelectionStep>& steps) {
  std::vector<int> layers;
  for (const SelectionStep& step : steps) layers.push_back(step.chosen);
  return layers;
}

// sum over k < K of (12 - k), and one.
TEST(SelectLayers, MakesAsManyMeasurementsAsTheSearchNeeds) {
  std::vector<int> twelve;
  for (int i = 0; i < 12; ++i) twelve.push_back(i);
  for (const auto& [count, calls] : std::map<int, int>{{3, 34}, {4, 43}, {5, 51}, {6, 58}}) {
    Mock mock{[](const std::set<int>& set) { return -static_cast<double>(set.size()); }};
    EXPECT_EQ(chosen(select_layers(twelve, count, false, std::ref(mock))).size(),
              static_cast<std::size_t>(count));
    EXPECT_EQ(mock.calls, calls);
  }
}

TEST(SelectLayers, OfAdditiveEntropyTakesTheSmallestOnes) {
  const std::map<int, double> cost{{0, 0.4}, {1, 0.1}, {2, 0.7}, {4, 0.2}, {7, 0.3}};
  Mock mock{[&](const std::set<int>& set) {
    double entropy = 10;
    for (const int layer : set) entropy -= cost.at(layer);
    return entropy;
  }};
  const auto steps = select_layers({7, 0, 4, 1, 2}, 3, false, std::ref(mock));
  EXPECT_EQ(chosen(steps), (std::vector<int>{1, 4, 7}));
  EXPECT_NEAR(steps[0].transfer_entropy, 0.1, 1e-12);
  EXPECT_NEAR(steps[2].transfer_entropy, 0.6, 1e-12);  // against nothing skipped, not the last step
  ASSERT_EQ(steps[1].tried.size(), 4U);
  EXPECT_EQ(steps[1].tried[0].first, 0);
  EXPECT_NEAR(steps[1].tried[0].second, 0.5, 1e-12);
}

/// H(full) - TE of a table that is not additive: alone 0 is cheapest, but it makes 1 expensive.
double crossed(const std::set<int>& set) {
  static const std::map<std::set<int>, double> te{{{}, 0},       {{0}, 0.1},      {{1}, 0.2},
                                                  {{2}, 0.3},    {{0, 1}, 0.9},   {{0, 2}, 0.5},
                                                  {{1, 2}, 0.4}, {{0, 1, 2}, 1.0}};
  return 5 - te.at(set);
}

TEST(SelectLayers, IsGreedyNotARankingAndNotExhaustive) {
  Mock mock{crossed};
  // A ranking of single layers would take {0, 1}, an exhaustive search {1, 2}.
  EXPECT_EQ(chosen(select_layers({0, 1, 2}, 2, false, std::ref(mock))), (std::vector<int>{0, 2}));
}

TEST(SelectLayers, SignedAndAbsoluteDifferOnNegativeValues) {
  const auto rule = [](const std::set<int>& set) {
    double entropy = 3;
    for (const int layer : set) entropy -= layer == 0 ? 0.1 : layer == 1 ? -0.6 : 0.3;
    return entropy;
  };
  Mock mock{rule};
  EXPECT_EQ(chosen(select_layers({0, 1, 2}, 1, false, std::ref(mock))), std::vector<int>{1});
  EXPECT_EQ(chosen(select_layers({0, 1, 2}, 1, true, std::ref(mock))), std::vector<int>{0});
  // Magnitudes are against nothing skipped, not against the step before: |0.1 + 0.3| < |0.1 - 0.6|.
  EXPECT_EQ(chosen(select_layers({0, 1, 2}, 2, true, std::ref(mock))), (std::vector<int>{0, 2}));
}

TEST(SelectLayers, TiesGoToTheLowestLayer) {
  Mock mock{[](const std::set<int>&) { return 1.0; }};
  EXPECT_EQ(chosen(select_layers({5, 3, 8}, 2, false, std::ref(mock))), (std::vector<int>{3, 5}));
}

}  // namespace
}  // namespace ablate
