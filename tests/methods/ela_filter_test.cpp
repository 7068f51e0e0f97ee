#include "methods/ela_filter.h"

#include <numeric>

#include <gtest/gtest.h>

namespace ablate::methods::ela {
namespace {

using Mask = std::vector<bool>;

/// Scores against 0.4 with a band of 0.1 above, all candidates measured.
class Decisions {
 public:
  Decisions(FilterSettings settings, std::vector<Candidate> candidates)
      : filter_(settings, candidates), count_(candidates.size()) {}

  const Mask& take(const std::vector<double>& scores) {
    Mapping mapping{.decides = true, .score = scores};
    std::vector<LayerMoments> moments;
    for (const double score : scores) {
      mapping.flagged.push_back(score <= 0.4);
      mapping.clear.push_back(score > 0.5);
      moments.push_back({.mean = score});
    }
    std::vector<std::size_t> all(count_);
    std::iota(all.begin(), all.end(), 0);
    filter_.update(mapping, all, moments);
    return filter_.skipped();
  }
  MaskFilter& filter() { return filter_; }

 private:
  MaskFilter filter_;
  std::size_t count_;
};

TEST(ElaFilter, CandidatesLeaveOutTheFirstOfEachStage) {
  const auto one = candidates_of({2, 3}, 1);
  ASSERT_EQ(one.size(), 3U);
  EXPECT_EQ(one[0], (Candidate{.block = 1, .stage = 0, .position = 1}));
  EXPECT_EQ(one[1], (Candidate{.block = 3, .stage = 1, .position = 1}));
  EXPECT_EQ(one[2], (Candidate{.block = 4, .stage = 1, .position = 2}));
  // Pairs of networks: of neighbours, and of neighbours with two earlier blocks.
  const std::vector<std::pair<std::vector<int>, std::pair<int, int>>> networks{
      {{2, 2, 2}, {3, 0}},     {{6, 6, 6}, {15, 12}},     {{12, 12, 12}, {33, 30}},
      {{3, 4, 6, 3}, {12, 8}}, {{3, 4, 23, 3}, {29, 25}}, {{4, 4, 4}, {9, 6}}};
  for (const auto& [stages, counts] : networks) {
    EXPECT_EQ(std::ssize(candidates_of(stages, 1)), counts.first);
    EXPECT_EQ(std::ssize(candidates_of(stages, 2)), counts.second);
  }
}

TEST(ElaFilter, PatienceNeedsDecisionsInARow) {
  Decisions d({.patience = 2}, candidates_of({3}, 1));
  EXPECT_EQ(d.take({.1, .9}), (Mask{false, false}));
  EXPECT_EQ(d.take({.6, .1}), (Mask{false, false})) << "the run of the first was broken";
  EXPECT_EQ(d.take({.1, .1}), (Mask{false, true}));
  EXPECT_EQ(d.take({.1, .9}), (Mask{true, true})) << "one clear decision revives nothing";
  EXPECT_EQ(d.take({.1, .9}), (Mask{true, false}));
}

TEST(ElaFilter, OscillationInTheBandFlipsNothing) {
  Decisions d({.patience = 1}, candidates_of({2}, 1));
  EXPECT_EQ(d.take({.3}), Mask{true});
  for (int i = 0; i < 6; ++i) EXPECT_EQ(d.take({i % 2 == 0 ? .45 : .39}), Mask{true});
  EXPECT_EQ(d.take({.51}), Mask{false});
  for (int i = 0; i < 6; ++i) EXPECT_EQ(d.take({i % 2 == 0 ? .45 : .49}), Mask{false});
}

TEST(ElaFilter, WithoutPatienceAndBandTheMaskIsTheFlags) {
  MaskFilter filter({}, candidates_of({4}, 1));
  for (const Mask& flags : {Mask{true, false, true}, Mask{false, true, true}, Mask(3)}) {
    Mask clear = flags;
    clear.flip();
    filter.update({.decides = true, .score = {.1, .2, .3}, .flagged = flags, .clear = clear},
                  {0, 1, 2}, std::vector<LayerMoments>(3));
    EXPECT_EQ(filter.skipped(), flags);
  }
}

TEST(ElaFilter, AtMostAShareIsSkippedAndTheLargestComeBack) {
  Decisions d({.most_skipped = 0.5}, candidates_of({6}, 1));
  EXPECT_EQ(d.take({.3, .1, .35, .2, .9}), (Mask{false, true, false, true, false}));
  EXPECT_EQ(d.filter().count(), 2);
}

TEST(ElaFilter, AtMostSomeNeighboursOfAStageAreSkipped) {
  Decisions d({.in_a_row = 2}, candidates_of({6, 3}, 1));
  EXPECT_EQ(d.take({.1, .2, .39, .3, .35, .1, .1}),
            (Mask{true, true, false, true, true, true, true}));
}

TEST(ElaFilter, LayersFarFromTheirNeighbourStay) {
  Decisions d({.never_above = 0.25}, candidates_of({3}, 1));
  EXPECT_EQ(d.take({.2, .3}), (Mask{true, false}));
}

TEST(ElaFilter, NoDecisionLeavesTheMask) {
  Decisions d({}, candidates_of({3}, 1));
  d.take({.1, .9});
  d.filter().update({}, {}, {});
  EXPECT_EQ(d.filter().skipped(), (Mask{true, false}));
}

TEST(ElaFilter, WhatIsNotMeasuredStays) {
  MaskFilter filter({.most_skipped = 0.67}, candidates_of({4}, 1));
  filter.assign({false, true, false});
  filter.update(
      {.decides = true, .score = {.1, .2}, .flagged = {true, true}, .clear = {false, false}},
      {0, 2}, std::vector<LayerMoments>(2));
  EXPECT_EQ(filter.skipped(), (Mask{true, true, false})) << "the larger of the measured ones";
}

TEST(ElaFilter, AverageRemembers) {
  MomentAverage average(0.75, 2);
  average.add({LayerMoments{.mean = 4, .square = 16, .bounded = .8, .bounded_square = .64}, {}});
  average.add({LayerMoments{.mean = 8, .square = 64, .bounded = .4, .bounded_square = .16}, {}});
  ASSERT_TRUE(average.layers()[0]);
  EXPECT_DOUBLE_EQ(average.layers()[0]->mean, 5);
  EXPECT_DOUBLE_EQ(average.layers()[0]->square, 28);
  EXPECT_DOUBLE_EQ(average.layers()[0]->bounded, 0.7);
  EXPECT_DOUBLE_EQ(average.layers()[0]->bounded_square, 0.52);
  EXPECT_FALSE(average.layers()[1]);
  average.add({std::nullopt, LayerMoments{.mean = 3}});
  EXPECT_DOUBLE_EQ(average.layers()[0]->mean, 5);
  EXPECT_DOUBLE_EQ(average.layers()[1]->mean, 3);
}

}  // namespace
}  // namespace ablate::methods::ela
