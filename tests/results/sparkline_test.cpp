#include "results/sparkline.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

TEST(Sparkline, EightLevelsAndTheRange) {
  EXPECT_EQ(sparkline(std::vector<double>{0, 1, 2, 3, 4, 5, 6, 7}, 20), "▁▂▃▄▅▆▇█  0 … 7.00");
  EXPECT_EQ(sparkline(std::vector<double>{4.61, 0.123}, 2), "█▁  0.123 … 4.61");
}

TEST(Sparkline, SmallNumbersTakePowersOfTen) {
  EXPECT_EQ(sparkline(std::vector<double>{1e-6, 1.5e-3}, 2), "▁█  1e-06 … 0.00150");
}

TEST(Sparkline, LongCurvesAreAveraged) {
  // Stretches (0, 2), (4, 6), (8, 10): means 1, 5, 9; the range is that of the points.
  EXPECT_EQ(sparkline(std::vector<double>{0, 2, 4, 6, 8, 10}, 3), "▁▅█  0 … 10.0");
}

TEST(Sparkline, ConstantAndEmptyCurves) {
  EXPECT_EQ(sparkline(std::vector<double>{0.5, 0.5}, 8), "▄▄  0.500");
  EXPECT_EQ(sparkline({}, 8), "");
}

TEST(Sparkline, MarksWhatIsNotFinite) {
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(sparkline(std::vector<double>{1, NAN, 2, inf}, 8), "▁×█×  1.00 … 2.00");
  EXPECT_EQ(sparkline(std::vector<double>{NAN}, 8), "×");
}

TEST(Sparkline, NeedsAWidth) { EXPECT_THROW(sparkline(std::vector<double>{1}, 0), BugError); }

}  // namespace
}  // namespace ablate
