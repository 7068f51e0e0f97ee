#include "results/chunk.h"

#include <bit>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "runner/core/random.h"

namespace ablate {
namespace {

std::vector<CurvePoint> unpacked(const std::vector<Chunk>& chunks) {
  std::vector<CurvePoint> points;
  for (const Chunk& chunk : chunks) EXPECT_TRUE(unpack(chunk, points));
  return points;
}

void expect_same_bits(const std::vector<CurvePoint>& a, const std::vector<CurvePoint>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].step, b[i].step);
    if (std::isnan(a[i].value)) {
      EXPECT_TRUE(std::isnan(b[i].value));
    } else {
      EXPECT_EQ(std::bit_cast<std::uint64_t>(a[i].value), std::bit_cast<std::uint64_t>(b[i].value));
    }
  }
}

TEST(Chunk, EverySeriesComesBackBitForBit) {
  RandomStream random(1, Purpose::Test);
  for (int round = 0; round < 200; ++round) {
    std::vector<CurvePoint> points;
    std::int64_t step = -5;
    const bool regular = random.chance(0.5);
    const bool single = random.chance(0.5);
    const std::uint32_t n = random.below(700);
    for (std::uint32_t i = 0; i < n; ++i) {
      step += regular ? 7 : 1 + random.below(100);
      if (random.chance(0.002)) step += 1LL << 40;  // farther than a distance can say
      double value = random.normal();
      if (single) value = static_cast<float>(value);
      if (random.chance(0.01)) value = std::numeric_limits<double>::quiet_NaN();
      if (random.chance(0.01)) value = -std::numeric_limits<double>::infinity();
      if (random.chance(0.01)) value = -0.0;
      points.push_back({step, value});
    }
    expect_same_bits(unpacked(pack(points)), points);
  }
}

TEST(Chunk, RegularSinglePrecisionTakesFourBytesAPoint) {
  std::vector<CurvePoint> points;
  for (int i = 0; i < 512; ++i) points.push_back({10L * i, 0.5 * i});
  const auto chunks = pack(points);
  ASSERT_EQ(chunks.size(), 2U);
  EXPECT_EQ(chunks[0].data.size(), 4 * kChunkPoints);
  EXPECT_EQ(chunks[0].stride, 10);
  EXPECT_EQ(chunks[1].step0, 2560);
  EXPECT_EQ(chunks[0].min, 0.0);
  EXPECT_EQ(chunks[0].max, 127.5);
  EXPECT_EQ(chunks[0].sum, 0.5 * 255 * 256 / 2);
  EXPECT_EQ(chunks[0].last, 127.5);
}

TEST(Chunk, AggregatesSkipMissingNumbers) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto some = pack(std::vector<CurvePoint>{{0, nan}, {1, 3}, {2, 1}, {3, nan}});
  EXPECT_EQ(some[0].min, 1.0);
  EXPECT_EQ(some[0].max, 3.0);
  EXPECT_EQ(some[0].sum, 4.0);
  EXPECT_FALSE(some[0].last.has_value());
  const auto none = pack(std::vector<CurvePoint>{{0, nan}});
  EXPECT_FALSE(none[0].min.has_value());
}

TEST(Chunk, DataOfTheWrongSizeAreRefused) {
  Chunk chunk = pack(std::vector<CurvePoint>{{0, 1}, {1, 2}, {5, 3}})[0];
  std::vector<CurvePoint> points;
  EXPECT_TRUE(unpack(chunk, points));
  chunk.data.pop_back();
  points.clear();
  EXPECT_FALSE(unpack(chunk, points));
  EXPECT_TRUE(points.empty());
  chunk.n = -1;
  EXPECT_FALSE(unpack(chunk, points));
  chunk.codec = 3;
  EXPECT_FALSE(unpack(chunk, points));
}

}  // namespace
}  // namespace ablate
