#include "datasets/store/ordered_work.h"

#include <stdexcept>

#include <gtest/gtest.h>

namespace ablate {
namespace {

TEST(OrderedWork, HandsOutEveryResultOnceAndInOrder) {
  for (const int threads : {1, 2, 7}) {
    std::vector<std::int64_t> taken;
    in_order(
        3, 200, threads, [](std::int64_t i) { return i * i; },
        [&](std::int64_t square) {
          taken.push_back(square);
          return true;
        });
    ASSERT_EQ(taken.size(), 197U);
    for (std::int64_t i = 3; i < 200; ++i) EXPECT_EQ(taken[static_cast<std::size_t>(i - 3)], i * i);
  }
}

TEST(OrderedWork, DoesNotRunFarAhead) {
  std::atomic<std::int64_t> started{0};
  std::int64_t taken = 0, farthest = 0;
  in_order(
      0, 500, 3,
      [&](std::int64_t i) {
        ++started;
        return i;
      },
      [&](std::int64_t) {
        farthest = std::max(farthest, started - ++taken);
        return true;
      });
  EXPECT_LE(farthest, 4 * 3 + 3);
}

TEST(OrderedWork, EndsWhenTold) {
  std::int64_t taken = 0;
  in_order(
      0, 1'000'000'000, 2, [](std::int64_t i) { return i; },
      [&](std::int64_t) { return ++taken < 10; });
  EXPECT_EQ(taken, 10);
}

TEST(OrderedWork, RethrowsInOrder) {
  std::int64_t taken = 0;
  const auto fail = [&] {
    in_order(
        0, 100, 4,
        [](std::int64_t i) -> std::int64_t {
          if (i >= 20) throw std::runtime_error(std::to_string(i));
          return i;
        },
        [&](std::int64_t) {
          ++taken;
          return true;
        });
  };
  try {
    fail();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "20");
  }
  EXPECT_EQ(taken, 20);
}

TEST(OrderedWork, OfNothingIsNothing) {
  in_parallel(0, 4, [](std::int64_t) { FAIL(); });
  std::atomic<int> done{0};
  in_parallel(50, 4, [&](std::int64_t) { ++done; });
  EXPECT_EQ(done, 50);
}

}  // namespace
}  // namespace ablate
