#include "runner/measure/throughput.h"

#include <string>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/measure/protocol.h"

namespace ablate {
namespace {

/// A clock that only work moves on.
struct FakeTime {
  double now = 100;
  std::string order;

  std::function<void()> work(char name, double seconds) {
    return [this, name, seconds] {
      order += name;
      now += seconds;
    };
  }
  SecondsClock clock() {
    return [this] { return now; };
  }
};

TEST(Throughput, SubjectsTakeTurnsUntilTheBudgetIsUsedUp) {
  FakeTime time;
  const auto seconds =
      time_in_turns({time.work('a', 0.5), time.work('b', 1.5)},
                    {.budget_seconds = 5.9, .warm_up = 1, .min_rounds = 2}, time.clock());
  // A round takes 2 s: after the third 6 s are over.
  EXPECT_EQ(time.order, "abababab");
  ASSERT_EQ(seconds.size(), 2U);
  EXPECT_EQ(seconds[0], (std::vector<double>{0.5, 0.5, 0.5}));
  EXPECT_EQ(seconds[1], (std::vector<double>{1.5, 1.5, 1.5}));
  EXPECT_EQ(speed_ratios(seconds[0], seconds[1]), (std::vector<double>{3, 3, 3}));
}

TEST(Throughput, RoundsHaveALeastAndAMostNumber) {
  FakeTime time;
  const auto few = time_in_turns(
      {time.work('a', 1)}, {.budget_seconds = 0, .warm_up = 0, .min_rounds = 4}, time.clock());
  EXPECT_EQ(few[0].size(), 4U);
  const auto many =
      time_in_turns({time.work('a', 1)}, {.budget_seconds = 1e9, .max_rounds = 7}, time.clock());
  EXPECT_EQ(many[0].size(), 7U);
}

// numpy.quantile([3, 1, 4, 1, 5, 9, 2, 6], q)
TEST(Throughput, QuantilesAreThoseOfNumpy) {
  const std::vector<double> values{3, 1, 4, 1, 5, 9, 2, 6};
  EXPECT_DOUBLE_EQ(quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(values, 0.25), 1.75);
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 3.5);
  EXPECT_DOUBLE_EQ(quantile(values, 0.75), 5.25);
  EXPECT_DOUBLE_EQ(quantile(values, 0.99), 8.79);
  EXPECT_DOUBLE_EQ(quantile(values, 1), 9);
  const Spread spread = Spread::of(values);
  EXPECT_DOUBLE_EQ(spread.median, 3.5);
  EXPECT_DOUBLE_EQ(spread.p99, 8.79);
  EXPECT_DOUBLE_EQ(spread.spread, 1);
  EXPECT_THROW(quantile({}, 0.5), BugError);
}

TEST(Protocol, NamesWhatMustNotBeMixed) {
  EXPECT_EQ((Protocol{.kind = BenchKind::Train, .batch = 128}.name()), "train-fp32-b128");
  EXPECT_EQ((Protocol{.dtype = "fp64", .batch = 1}.name()), "infer-fp64-b1");
  EXPECT_EQ(
      (Protocol{.kind = BenchKind::Train, .dtype = "bf16", .batch = 8, .wire = "bf16"}.name()),
      "train-bf16-b8-wire-bf16");
}

}  // namespace
}  // namespace ablate
