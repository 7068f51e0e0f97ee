#include "methods/ela_statistics.h"

#include <cmath>

#include <gtest/gtest.h>

#include "distributed/communicator.h"
#include "tests/support/run_ranks.h"

namespace ablate::methods::ela {
namespace {

constexpr std::int64_t kHeads = 2;

/// Rows of two stages of 3 and 2 blocks for these images, each image its own.
RetrievalRecord row_record(std::int64_t first, std::int64_t images) {
  RetrievalRecord record;
  int block = 0;
  for (const int length : {3, 2}) {
    for (std::int64_t t = 1; t <= length; ++t, ++block) {
      const at::Tensor n =
          at::arange(first * kHeads * t, (first + images) * kHeads * t, at::kDouble);
      record.retrievals.push_back(
          {.block = block,
           .log_row = (2 * (n * 1.3 + block).sin()).view({images, kHeads, t}).log_softmax(-1),
           .query = {},
           .key = {},
           .logits = {}});
    }
  }
  return record;
}

/// The same stages told by queries and keys.
RetrievalRecord shadow_record(std::int64_t images) {
  constexpr std::int64_t kWidth = 4;
  RetrievalRecord record{.shadow = true, .retrievals = {}};
  for (int block = 0; block < 5; ++block) {
    const at::Tensor n = at::arange(images * kHeads * kWidth, at::kDouble);
    record.retrievals.push_back(
        {.block = block,
         .log_row = {},
         .query = (2 * (0.7 * n + block).sin()).view({images, kHeads, kWidth}),
         .key = (2 * (1.9 * n - block).cos()).view({images, kHeads, kWidth}),
         .logits = {}});
  }
  return record;
}

RetrievalRecord gate_record(std::int64_t first, std::int64_t images) {
  RetrievalRecord record;
  for (int block = 0; block < 5; ++block) {
    const at::Tensor n = at::arange(first * kHeads, (first + images) * kHeads, at::kDouble);
    record.retrievals.push_back({.block = block,
                                 .log_row = {},
                                 .query = {},
                                 .key = {},
                                 .logits = (2 * (n * 1.1 + block).cos()).view({images, kHeads})});
  }
  return record;
}

DivergenceSums sums_of(Divergence kind, bool gates = false, double clip = 10.0) {
  const int leave_out = kind == Divergence::Shared ? 2 : 1;
  return {kind, gates, clip, {{0, 1, 2}, {3, 4}}, candidates_of({3, 2}, leave_out), at::kCPU};
}

EpochStatistics read_all(const DivergenceSums& sums) {
  const auto self = make_self_communicator();
  return sums.read(sums.gather(*self).sum(0));
}

/// sum_{i < t} a'_i (log a'_i - log a_i) by loops, of neighbours `block` - 1 and `block`.
at::Tensor by_loops(const RetrievalRecord& record, int block) {
  const at::Tensor& previous = record.retrievals[static_cast<std::size_t>(block - 1)].log_row;
  const at::Tensor& current = record.retrievals[static_cast<std::size_t>(block)].log_row;
  at::Tensor d = at::zeros({previous.size(0), previous.size(1)}, at::kDouble);
  for (std::int64_t i = 0; i < previous.size(2); ++i) {
    const at::Tensor p = previous.select(2, i);
    d += p.exp() * (p - current.select(2, i));
  }
  return d;
}

TEST(ElaStatistics, MeansOverSamplesAndHeads) {
  DivergenceSums sums = sums_of(Divergence::Padded);
  sums.add(row_record(0, 4));
  sums.add(row_record(4, 3));
  const EpochStatistics epoch = read_all(sums);
  const RetrievalRecord all = row_record(0, 7);
  const std::vector<int> blocks{1, 2, 4};
  ASSERT_EQ(epoch.layers.size(), blocks.size());
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const at::Tensor d = by_loops(all, blocks[i]);
    ASSERT_TRUE(epoch.layers[i]);
    EXPECT_NEAR(epoch.layers[i]->mean, d.mean().item<double>(), 1e-12);
    EXPECT_NEAR(epoch.layers[i]->square, d.square().mean().item<double>(), 1e-12);
    const at::Tensor z = 1 - (-d).exp();
    EXPECT_NEAR(epoch.layers[i]->bounded, z.mean().item<double>(), 1e-12);
    EXPECT_NEAR(epoch.layers[i]->bounded_square, z.square().mean().item<double>(), 1e-12);
  }
  ASSERT_EQ(epoch.profiles.size(), 2U);
  const at::Tensor profile = epoch.profiles[0];
  EXPECT_TRUE(at::allclose(profile.sum(1), at::ones({3}, at::kDouble)));
  EXPECT_TRUE(at::allclose(profile[2], all.retrievals[2].log_row.exp().flatten(0, 1).mean(0)));
  EXPECT_EQ(profile[0][1].item<double>(), 0);
}

// Rows of queries against the keys of their stage, not of the one before.
TEST(ElaStatistics, ShadowsAreMadeIntoRows) {
  DivergenceSums shadows = sums_of(Divergence::Padded), rows = sums_of(Divergence::Padded);
  const RetrievalRecord told = shadow_record(6);
  shadows.add(told);
  RetrievalRecord by_hand;
  for (std::size_t t = 0; t < told.retrievals.size(); ++t) {
    std::vector<at::Tensor> logits;
    for (std::size_t i = t < 3 ? 0 : 3; i <= t; ++i) {
      logits.push_back((told.retrievals[t].query * told.retrievals[i].key).sum(2) / 2.0);
    }
    by_hand.retrievals.push_back({.block = static_cast<int>(t),
                                  .log_row = at::stack(logits, 2).log_softmax(2),
                                  .query = {},
                                  .key = {},
                                  .logits = {}});
  }
  rows.add(by_hand);
  const auto self = make_self_communicator();
  EXPECT_TRUE(at::allclose(shadows.gather(*self), rows.gather(*self), 1e-12, 1e-12));
  EXPECT_GT(read_all(shadows).layers[0]->mean, 0.0);
}

TEST(ElaStatistics, LargeDivergencesAreCutOffEachByItself) {
  DivergenceSums sums = sums_of(Divergence::Padded, false, 0.5);
  const RetrievalRecord record = row_record(0, 9);
  sums.add(record);
  const at::Tensor d = by_loops(record, 2);
  ASSERT_TRUE((d > 0.5).any().item<bool>() && (d < 0.5).any().item<bool>());
  EXPECT_NEAR(read_all(sums).layers[1]->mean, d.clamp_max(0.5).mean().item<double>(), 1e-12);
}

TEST(ElaStatistics, NumbersThatAreNoneAreLeftOut) {
  DivergenceSums sums = sums_of(Divergence::Padded);
  RetrievalRecord record = row_record(0, 4);
  sums.add(record);
  const double mean = read_all(sums).layers[1]->mean;
  for (Retrieval& retrieval : record.retrievals) {
    retrieval.log_row = at::full_like(retrieval.log_row, std::nan(""));
  }
  sums.add(record);
  EXPECT_EQ(read_all(sums).layers[1]->mean, mean);
}

TEST(ElaStatistics, SharedSupportBeginsWithTheThirdBlock) {
  DivergenceSums sums = sums_of(Divergence::Shared);
  sums.add(row_record(0, 5));
  const EpochStatistics epoch = read_all(sums);
  ASSERT_EQ(epoch.layers.size(), 1U);
  const RetrievalRecord record = row_record(0, 5);
  const at::Tensor self = record.retrievals[2].log_row.select(2, 2).exp();
  const at::Tensor expected = by_loops(record, 2) + (1 - self).log();
  EXPECT_NEAR(epoch.layers[0]->mean, expected.mean().item<double>(), 1e-12);
}

TEST(ElaStatistics, DivergenceOfMeanRowsIsBelowTheMeanOfDivergences) {
  DivergenceSums mean_rows = sums_of(Divergence::MeanRows), padded = sums_of(Divergence::Padded);
  for (DivergenceSums* sums : {&mean_rows, &padded}) {
    sums->add(row_record(0, 6));
    sums->add(row_record(6, 6));
  }
  const EpochStatistics a = read_all(mean_rows), b = read_all(padded);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_GT(a.layers[i]->mean, 0);
    EXPECT_LT(a.layers[i]->mean, b.layers[i]->mean);
  }
  // The second block: -log(1 - mean weight on itself).
  const double self =
      row_record(0, 12).retrievals[1].log_row.select(2, 1).exp().mean().item<double>();
  EXPECT_NEAR(a.layers[0]->mean, -std::log(1 - self), 1e-12);
}

TEST(ElaStatistics, GatesOfNeighbours) {
  DivergenceSums sums = sums_of(Divergence::Bernoulli, true);
  sums.add(gate_record(0, 5));
  sums.add(gate_record(5, 2));
  const EpochStatistics epoch = read_all(sums);
  const RetrievalRecord all = gate_record(0, 7);
  const at::Tensor p = all.retrievals[3].logits.sigmoid(), q = all.retrievals[4].logits.sigmoid();
  const at::Tensor d = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log();
  ASSERT_EQ(epoch.layers.size(), 3U);
  EXPECT_NEAR(epoch.layers[2]->mean, d.mean().item<double>(), 1e-12);
  EXPECT_EQ(epoch.profiles[1].sizes(), (at::IntArrayRef{2, 1}));
  EXPECT_NEAR(epoch.profiles[1][0][0].item<double>(), p.mean().item<double>(), 1e-12);
}

// Without shadow, skipped blocks are absent, and neighbours are those that are left.
TEST(ElaStatistics, ComparesWhatIsThere) {
  DivergenceSums sums = sums_of(Divergence::Bernoulli, true);
  RetrievalRecord record = gate_record(0, 6);
  const at::Tensor p = record.retrievals[0].logits.sigmoid(),
                   q = record.retrievals[2].logits.sigmoid();
  record.retrievals.erase(record.retrievals.begin() + 1);
  sums.add(record);
  const EpochStatistics epoch = read_all(sums);
  EXPECT_FALSE(epoch.layers[0]);
  const at::Tensor d = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log();
  EXPECT_NEAR(epoch.layers[1]->mean, d.mean().item<double>(), 1e-12);
  EXPECT_TRUE(epoch.layers[2]);
}

TEST(ElaStatistics, RanksTogetherKnowWhatOneWouldKnow) {
  DivergenceSums alone = sums_of(Divergence::Padded);
  alone.add(row_record(0, 8));
  const EpochStatistics expected = read_all(alone);
  std::vector<EpochStatistics> found(2);
  test::run_ranks(2, [&](Communicator& world) {
    DivergenceSums mine = sums_of(Divergence::Padded);
    mine.add(row_record(4 * world.rank(), 4));
    found[static_cast<std::size_t>(world.rank())] = mine.read(mine.gather(world).sum(0));
  });
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(found[0].layers[i]->mean, expected.layers[i]->mean, 1e-12);
    EXPECT_EQ(found[0].layers[i]->mean, found[1].layers[i]->mean) << "bit for bit on all ranks";
  }
}

TEST(ElaStatistics, GoesOnFromSavedSums) {
  const auto self = make_self_communicator();
  DivergenceSums whole = sums_of(Divergence::Padded), first = sums_of(Divergence::Padded);
  whole.add(row_record(0, 3));
  first.add(row_record(0, 3));
  DivergenceSums second = sums_of(Divergence::Padded);
  second.reset(first.gather(*self)[0]);
  whole.add(row_record(3, 3));
  second.add(row_record(3, 3));
  EXPECT_TRUE(at::equal(whole.gather(*self), second.gather(*self)));
  second.reset();
  EXPECT_EQ(second.gather(*self).abs().max().item<double>(), 0);
}

}  // namespace
}  // namespace ablate::methods::ela
