#include "methods/kernels/token_match.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

using Int32s = std::vector<std::int32_t>;

/// Keys and maps of a batch.
struct MatchCase {
  TokenMatch arguments;
  std::vector<bfloat16> qkv;
  Int32s positions, offsets, members;

  MatchCase(std::int64_t batch, std::int64_t tokens, std::int64_t heads, int dim, std::int64_t r,
            int protected_tokens)
      : qkv(test::normal_values<bfloat16>(
            static_cast<std::size_t>(batch * tokens * 3 * heads * dim), 11)),
        positions(static_cast<std::size_t>(batch * tokens)),
        members(positions.size()) {
    arguments = {.batch = batch,
                 .tokens = tokens,
                 .heads = heads,
                 .head_dim = dim,
                 .merged = std::min(r, most_merged(tokens, protected_tokens)),
                 .protected_tokens = protected_tokens};
    offsets.resize(static_cast<std::size_t>(batch * (tokens - arguments.merged + 1)));
  }

  bfloat16* key(std::int64_t image, std::int64_t token, std::int64_t head) {
    const std::int64_t row = image * arguments.tokens + token;
    return qkv.data() + ((row * 3 + 1) * arguments.heads + head) * arguments.head_dim;
  }
  /// Keys of 16 ones or minus ones, equal in all heads: similarities are multiples of 1/16, exact
  /// in any arithmetic when the number of heads is a power of two, and often equal.
  void use_signs() {
    RandomStream stream(12, Purpose::Test);
    for (std::int64_t image = 0; image < arguments.batch; ++image) {
      for (std::int64_t token = 0; token < arguments.tokens; ++token) {
        std::vector<bfloat16> vector(static_cast<std::size_t>(arguments.head_dim));
        for (std::size_t c = 0; c < 16; ++c) {
          vector[c] = from_float<bfloat16>(stream.chance(0.5) ? 1.0F : -1.0F);
        }
        for (std::int64_t head = 0; head < arguments.heads; ++head) {
          std::ranges::copy(vector, key(image, token, head));
        }
      }
    }
  }
  TokenMatch on_host() {
    TokenMatch a = arguments;
    a.qkv = qkv.data();
    a.groups = {positions.data(), offsets.data(), members.data()};
    return a;
  }
  double similarity(std::int64_t image, std::int64_t x, std::int64_t y) {
    double product = 0.0, xx = 0.0, yy = 0.0;
    for (int c = 0; c < arguments.head_dim; ++c) {
      double of_x = 0.0, of_y = 0.0;
      for (std::int64_t head = 0; head < arguments.heads; ++head) {
        of_x += to_float(key(image, x, head)[c]);
        of_y += to_float(key(image, y, head)[c]);
      }
      product += of_x * of_y;
      xx += of_x * of_x;
      yy += of_y * of_y;
    }
    return product / std::sqrt(xx * yy);
  }
};

/// Four tokens in the plane by angle: 0 (class), 90, 80, 10 degrees. Token 2 is closest to token 1.
MatchCase plane_case(int protected_tokens) {
  MatchCase c(1, 4, 1, 8, 1, protected_tokens);
  const std::vector<double> degrees{0, 90, 80, 10};
  for (std::int64_t token = 0; token < 4; ++token) {
    std::fill_n(c.key(0, token, 0), 8, bfloat16{});
    const double angle = degrees[static_cast<std::size_t>(token)] * 3.14159265358979 / 180;
    c.key(0, token, 0)[0] = from_float<bfloat16>(static_cast<float>(std::cos(angle)));
    c.key(0, token, 0)[1] = from_float<bfloat16>(static_cast<float>(std::sin(angle)));
  }
  return c;
}

TEST(TokenMatch, TheMostSimilarPairJoins) {
  MatchCase c = plane_case(1);
  reference::match_tokens(c.on_host());
  // New order: token 0, then B = tokens 1 (with 2) and 3.
  EXPECT_EQ(c.positions, (Int32s{0, 1, 1, 2}));
  EXPECT_EQ(c.offsets, (Int32s{0, 1, 3, 4}));
  EXPECT_EQ(c.members, (Int32s{0, 1, 2, 3}));
}

TEST(TokenMatch, ADistillationTokenStaysSecondAndAlone) {
  MatchCase c = plane_case(2);
  reference::match_tokens(c.on_host());
  // Token 1 is the distillation token, so token 2 joins token 3, the only other one of B.
  EXPECT_EQ(c.positions, (Int32s{0, 1, 2, 2}));
}

TEST(TokenMatch, NothingMergedKeepsTheOrder) {
  MatchCase c(1, 3, 1, 8, 0, 0);
  reference::match_tokens(c.on_host());
  EXPECT_EQ(c.positions, (Int32s{0, 1, 2}));
  EXPECT_EQ(c.offsets, (Int32s{0, 1, 2, 3}));
}

TEST(TokenMatch, AtMostHalfOfTheUnprotectedTokensMerge) {
  EXPECT_EQ(most_merged(197, 1), 98);
  EXPECT_EQ(most_merged(198, 2), 98);
  EXPECT_EQ(most_merged(1, 2), 0);
}

TEST(TokenGroups, MembersAscendInEachGroup) {
  Int32s positions{1, 0, 1, 2, 0}, offsets(4), members(5);
  reference::group_tokens({.batch = 1,
                           .tokens = 5,
                           .new_tokens = 3,
                           .groups = {positions.data(), offsets.data(), members.data()}});
  EXPECT_EQ(offsets, (Int32s{0, 2, 4, 5}));
  EXPECT_EQ(members, (Int32s{1, 4, 0, 2, 3}));
}

TEST(TokenGroups, ChainsFollowTokensThroughBlocks) {
  Int32s first{0, 1, 1, 2}, second{1, 0, 0}, to(4);
  reference::chain_positions({.batch = 1,
                              .tokens = 4,
                              .middle_tokens = 3,
                              .first = first.data(),
                              .second = second.data(),
                              .to = to.data()});
  EXPECT_EQ(to, (Int32s{1, 0, 0, 0}));
}

/// Partners and scores recovered from positions alone.
struct RecoveredMatch {
  std::vector<std::int64_t> partner;  // of each member of A: its member of B, or -1
  std::vector<double> score, best;    // with that partner; with the best one

  RecoveredMatch(MatchCase& c, std::int64_t image) {
    const TokenMatch& a = c.arguments;
    const std::int32_t* positions = c.positions.data() + image * a.tokens;
    const std::int64_t first_b = a.protected_tokens == 2 ? 1 : 0;
    for (std::int64_t i = 0; i < (a.tokens + 1) / 2; ++i) {
      partner.push_back(-1);
      score.push_back(0.0);
      best.push_back(std::numeric_limits<double>::lowest());
      for (std::int64_t j = first_b; j < a.tokens / 2; ++j) {
        const double similarity = c.similarity(image, 2 * i, 2 * j + 1);
        best.back() = std::max(best.back(), similarity);
        if (positions[2 * i] != positions[2 * j + 1]) continue;
        partner.back() = j;
        score.back() = similarity;
      }
    }
  }
};

/// That the positions are a right answer, with similarities told apart down to `tolerance`.
void expect_valid_matching(MatchCase& c, std::int64_t image, double tolerance) {
  const TokenMatch& a = c.arguments;
  const std::int32_t* positions = c.positions.data() + image * a.tokens;
  const RecoveredMatch found(c, image);
  double worst_merged = std::numeric_limits<double>::infinity();
  double best_kept = -worst_merged, last_kept = worst_merged;
  std::int64_t merged = 0, kept = 0;
  std::vector<std::pair<std::int32_t, double>> order;
  for (std::size_t i = 0; i < found.partner.size(); ++i) {
    const bool is_class = a.protected_tokens >= 1 && i == 0;
    if (found.partner[i] >= 0) {
      ++merged;
      EXPECT_FALSE(is_class);
      EXPECT_GE(found.score[i], found.best[i] - tolerance) << "partner of member " << i << " of A";
      worst_merged = std::min(worst_merged, found.best[i]);
      continue;
    }
    if (a.protected_tokens >= 1) {
      EXPECT_EQ(positions[2 * i], kept + (a.protected_tokens == 2 && kept > 0 ? 1 : 0));
    }
    order.emplace_back(positions[2 * i], found.best[i]);
    if (!is_class) best_kept = std::max(best_kept, found.best[i]);
    ++kept;
  }
  EXPECT_EQ(merged, a.merged);
  if (merged > 0) {
    EXPECT_GE(worst_merged, best_kept - tolerance);
  }
  for (std::int64_t j = 0; j < a.tokens / 2; ++j) {
    EXPECT_EQ(positions[2 * j + 1], a.protected_tokens == 2 && j == 0 ? 1 : kept + j);
  }
  if (a.protected_tokens > 0) return;
  std::ranges::sort(order);
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    EXPECT_EQ(order[rank].first, static_cast<std::int32_t>(rank));
    EXPECT_LE(order[rank].second, last_kept + tolerance);
    last_kept = order[rank].second;
  }
}

#if ABLATE_HAS_CUDA

using test::DeviceBuffer;
using TokenMatchGpu = test::GpuTest;

/// Runs the kernel twice; its maps replace those of the case.
void match_on_device(MatchCase& c) {
  const DeviceBuffer<bfloat16> qkv(c.qkv, 8);
  Int32s first_positions;
  for (int launch = 0; launch < 2; ++launch) {
    DeviceBuffer<std::int32_t> positions(c.positions.size(), 1), offsets(c.offsets.size(), 2),
        members(c.members.size(), 3);
    TokenMatch a = c.arguments;
    a.qkv = qkv.data();
    a.groups = {positions.data(), offsets.data(), members.data()};
    match_tokens(a, nullptr);
    c.positions = positions.download();
    c.offsets = offsets.download();
    c.members = members.download();
    EXPECT_TRUE(positions.guards_intact() && offsets.guards_intact() && members.guards_intact());
    if (launch == 0) first_positions = c.positions;
    EXPECT_EQ(c.positions, first_positions) << "second launch";
  }
  MatchCase expected = c;
  TokenMatch a = expected.on_host();
  reference::group_tokens({.batch = a.batch,
                           .tokens = a.tokens,
                           .new_tokens = a.tokens - a.merged,
                           .groups = a.groups});
  EXPECT_EQ(c.offsets, expected.offsets);
  EXPECT_EQ(c.members, expected.members);
}

struct MatchSize {
  std::int64_t batch, tokens, heads;
  int dim;
  std::int64_t merged;
};

const std::vector<MatchSize> kMatchSizes{
    {1, 1, 1, 64, 0},     {2, 2, 1, 64, 1},     {2, 3, 3, 64, 1},    {1, 4, 2, 32, 2},
    {3, 5, 1, 8, 2},      {2, 17, 4, 32, 5},    {2, 65, 3, 64, 4},   {2, 197, 3, 64, 13},
    {2, 197, 6, 64, 98},  {1, 198, 12, 64, 13}, {2, 184, 6, 64, 13}, {1, 145, 5, 48, 16},
    {1, 66, 2, 16, 30},   {1, 99, 1, 128, 7},   {1, 50, 3, 256, 3},  {1, 577, 2, 64, 23},
    {1, 1025, 1, 64, 50},
};

TEST_F(TokenMatchGpu, FindsTheMostSimilarPairs) {
  for (const MatchSize& size : kMatchSizes) {
    for (const int protected_tokens : {0, 1, 2}) {
      SCOPED_TRACE(::testing::Message() << size.tokens << " tokens, " << size.heads << " heads of "
                                        << size.dim << ", " << protected_tokens << " protected");
      if (test::too_large_here(size.batch * size.tokens * size.tokens)) continue;
      MatchCase c(size.batch, size.tokens, size.heads, size.dim, size.merged, protected_tokens);
      match_on_device(c);
      if (c.arguments.merged == 0) {
        for (std::size_t i = 0; i < c.positions.size(); ++i) {
          EXPECT_EQ(c.positions[i], static_cast<std::int32_t>(i) % size.tokens);
        }
        continue;
      }
      for (std::int64_t image = 0; image < size.batch; ++image) {
        expect_valid_matching(c, image, 1e-5);
      }
    }
  }
}

TEST_F(TokenMatchGpu, BreaksTiesAsTheReference) {
  for (const std::int64_t tokens : {6, 65, 197, 198, 700, 1600}) {
    for (const int protected_tokens : {0, 1, 2}) {
      SCOPED_TRACE(::testing::Message() << tokens << " tokens, " << protected_tokens);
      if (test::too_large_here(tokens * tokens)) continue;
      MatchCase c(1, tokens, 2, 64, tokens / 4, protected_tokens);
      c.use_signs();
      MatchCase expected = c;
      reference::match_tokens(expected.on_host());
      match_on_device(c);
      EXPECT_EQ(c.positions, expected.positions);
    }
  }
}

/// Keys without a direction, or that are no numbers, never break the maps.
TEST_F(TokenMatchGpu, AnyKeysGiveAGrouping) {
  for (const float value : {0.0F, std::numeric_limits<float>::quiet_NaN()}) {
    MatchCase c(1, 33, 2, 64, 16, 1);
    std::ranges::fill(c.qkv, from_float<bfloat16>(value));
    match_on_device(c);
    EXPECT_EQ(c.positions[0], 0);
    EXPECT_EQ(c.offsets.front(), 0);
    EXPECT_EQ(c.offsets.back(), 33);
    EXPECT_EQ(c.offsets[1], 1) << "the class token is alone";
  }
}

TEST_F(TokenMatchGpu, RefusesToMergeTooMany) {
  MatchCase c(1, 8, 1, 64, 3, 1);
  c.arguments.merged = 4;
  EXPECT_ANY_THROW(match_tokens(c.arguments, nullptr));
}

/// The matching kernel weighs its groups as group_tokens does.
TEST_F(TokenMatchGpu, WeighsWhatItGroups) {
  MatchCase c(3, 197, 6, 64, 13, 1);
  const DeviceBuffer<bfloat16> qkv(c.qkv, 8);
  std::vector<float> sizes(c.positions.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) sizes[i] = static_cast<float>(1 + i % 5);
  const DeviceBuffer<float> s(sizes);
  DeviceBuffer<std::int32_t> positions(c.positions.size()), offsets(c.offsets.size()),
      members(c.members.size());
  DeviceBuffer<float> merged(3 * 184), logs(3 * 184), shares(sizes.size());
  c.arguments.qkv = qkv.data();
  c.arguments.groups = {positions.data(), offsets.data(), members.data()};
  c.arguments.weights = {s.data(), merged.data(), logs.data(), shares.data()};
  match_tokens(c.arguments, nullptr);
  c.positions = positions.download();
  std::vector<float> expected(3 * 184), expected_shares(sizes.size());
  reference::weigh_groups({.batch = 3,
                           .tokens = 197,
                           .new_tokens = 184,
                           .groups = {.positions = c.positions.data()},
                           .weights = {.sizes = sizes.data(),
                                       .merged_sizes = expected.data(),
                                       .shares = expected_shares.data()}});
  EXPECT_EQ(merged.download(), expected);
  EXPECT_TRUE(test::all_close(shares.download(), expected_shares, 0.0, 1e-7));
  EXPECT_TRUE(merged.guards_intact() && logs.guards_intact() && shares.guards_intact());
}

#endif

TEST(TokenMatch, TheReferenceIsAValidMatching) {
  for (const int protected_tokens : {0, 1, 2}) {
    MatchCase c(2, 50, 3, 16, 9, protected_tokens);
    reference::match_tokens(c.on_host());
    for (std::int64_t image = 0; image < 2; ++image) expect_valid_matching(c, image, 1e-12);
  }
}

}  // namespace
}  // namespace ablate::kernels
