#include "runner/measure/memory.h"

#include <vector>

#include <gtest/gtest.h>

#include "tests/support/models.h"

namespace ablate {
namespace {

constexpr std::int64_t kKiB = 1024;

TEST(MemoryMeter, FollowsTensorsAndKeepsTheirPeak) {
  const at::Tensor before = at::zeros({256}, at::kFloat);
  MemoryMeter meter;
  EXPECT_EQ(meter.current(), 0) << "what was there before is not counted";
  at::Tensor a = at::zeros({1024}, at::kFloat);
  EXPECT_EQ(meter.current(), 4 * kKiB);
  {
    const at::Tensor b = at::zeros({2048}, at::kDouble);
    EXPECT_EQ(meter.current(), 20 * kKiB);
    const at::Tensor view = b.narrow(0, 5, 100);
    EXPECT_EQ(meter.current(), 20 * kKiB) << "a view owns nothing";
  }
  EXPECT_EQ(meter.current(), 4 * kKiB);
  EXPECT_EQ(meter.peak(), 20 * kKiB);
  meter.reset_peak();
  EXPECT_EQ(meter.peak(), 4 * kKiB);
  a.reset();
  EXPECT_EQ(meter.current(), 0);
}

TEST(MemoryMeter, MetersNestAndEnd) {
  MemoryMeter outer;
  {
    const MemoryMeter inner;
    const at::Tensor a = at::zeros({kKiB}, at::kByte);
    EXPECT_EQ(inner.current(), kKiB);
    EXPECT_EQ(outer.current(), 0) << "the innermost one counts";
  }
  const at::Tensor b = at::zeros({2 * kKiB}, at::kByte);
  EXPECT_EQ(outer.peak(), 2 * kKiB);
}

// y = x w, loss = sum(y^2): backward holds at least x, y, dy and both gradients at once.
TEST(MemoryMeter, SeesTheBackwardPass) {
  MemoryMeter meter;
  const at::Tensor x = at::ones({64, 64}, at::kFloat).set_requires_grad(true);
  const at::Tensor w = at::ones({64, 64}, at::kFloat).set_requires_grad(true);
  const std::int64_t matrix = 16 * kKiB;
  EXPECT_EQ(meter.current(), 2 * matrix);
  at::Tensor loss = at::mm(x, w).square().sum();
  loss.backward();
  loss.reset();
  EXPECT_EQ(meter.current(), 4 * matrix) << "two matrices and their gradients stay";
  EXPECT_GE(meter.peak(), 6 * matrix);
}

/// The largest batch, and the batches that were tried for it.
struct Search {
  std::int64_t found;
  std::vector<std::int64_t> tried;
};

Search search(const std::function<std::int64_t(std::int64_t)>& bytes, std::int64_t budget,
              std::int64_t limit = 65'536) {
  Search result{};
  result.found = find_max_batch(
      [&](std::int64_t batch) {
        result.tried.push_back(batch);
        return bytes(batch);
      },
      budget, limit);
  return result;
}

TEST(MaxBatch, IsExactForStraightAndForBentCurves) {
  const std::vector<std::function<std::int64_t(std::int64_t)>> curves{
      [](std::int64_t b) { return 1000 + 70 * b; },
      [](std::int64_t b) { return 7 * b; },
      [](std::int64_t b) { return b < 40 ? 500 + b : 90 * b; },       // another algorithm from 40
      [](std::int64_t b) { return 3 * b * b; },                       //
      [](std::int64_t b) { return 1000 + (b + 15) / 16 * 16 * 70; },  // steps
      [](std::int64_t) { return std::int64_t{5}; },
  };
  for (std::size_t i = 0; i < curves.size(); ++i) {
    for (const std::int64_t budget : {1, 500, 1100, 3333, 20'000, 1'000'000}) {
      constexpr std::int64_t kLimit = 3000;
      std::int64_t expected = 0;
      while (expected < kLimit && curves[i](expected + 1) <= budget) ++expected;
      EXPECT_EQ(search(curves[i], budget, kLimit).found, expected)
          << "curve " << i << ", " << budget;
    }
  }
}

TEST(MaxBatch, NeedsFewTriesAndNeverJumpsFar) {
  const auto affine = [](std::int64_t b) { return 50'000'000 + 9'100'000 * b; };
  const Search result = search(affine, std::int64_t{4} << 30);
  EXPECT_EQ(result.found, 466);
  EXPECT_LE(result.tried.size(), 6U);
  std::int64_t largest = 1;
  for (const std::int64_t batch : result.tried) {
    EXPECT_LE(batch, 16 * largest) << "a trial too large would end the process";
    largest = std::max(largest, batch);
  }
}

TEST(FittingBatch, LiesBetweenWhatFitsAndWhatDoesNot) {
  for (const std::int64_t room : {0, 1, 2, 3, 5, 63, 64, 100, 1000, 4095, 4096}) {
    for (const std::int64_t start : {1, 7, 256, 4096}) {
      std::int64_t trials = 0;
      const FittingBatch found = find_fitting_batch(
          [&](std::int64_t batch) {
            ++trials;
            return batch <= room;
          },
          start, 4096);
      EXPECT_LE(found.fits, room) << "from " << start;
      EXPECT_LE(trials, 24) << room << " from " << start;
      if (room == 4096) {
        EXPECT_EQ(found.fits, 4096);
        EXPECT_EQ(found.too_large, 0) << "the limit itself fits";
        continue;
      }
      EXPECT_GT(found.too_large, room);
      const std::int64_t width = found.too_large - found.fits;
      EXPECT_LE(width, std::max<std::int64_t>(1, found.fits / 64)) << room << " from " << start;
    }
  }
}

}  // namespace
}  // namespace ablate
