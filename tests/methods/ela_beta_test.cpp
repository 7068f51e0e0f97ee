#include "methods/ela_beta.h"

#include <array>
#include <cmath>
#include <numbers>

#include <gtest/gtest.h>

namespace ablate::methods::ela {
namespace {

struct Point {
  double x, alpha, beta, value;
};

// Closed forms where there is one (polynomials for whole parameters, (2 / pi) arcsin sqrt x for
// both 1/2, symmetry); the rest from an independent library.
TEST(ElaBeta, DistributionFunctionAtKnownPoints) {
  const std::array<Point, 9> points{{
      {0.1, 0.5, 0.5, 2.0 / std::numbers::pi * std::asin(std::sqrt(0.1))},
      {0.25, 0.5, 0.5, 1.0 / 3.0},
      {0.3, 2, 5, 0.579825},
      {0.9, 5, 2, 0.885735},
      {0.25, 2, 2, 0.15625},
      {1e-6, 0.2, 3, 0.0832863417},
      {0.999, 8, 0.3, 0.7420940291},
      {0.5, 50, 50, 0.5},
      {0.02, 0.05, 0.9, 0.8154136512},
  }};
  for (const Point& p : points) {
    EXPECT_NEAR((Beta{p.alpha, p.beta}.cdf(p.x)), p.value, 1e-10) << p.x << ", " << p.alpha;
  }
}

TEST(ElaBeta, QuantilesAtKnownPoints) {
  const std::array<Point, 8> points{{
      {0.3, 1, 3, 1.0 - std::cbrt(0.7)},
      {0.3, 3, 1, std::cbrt(0.3)},
      {0.3, 0.5, 0.5, std::pow(std::sin(0.15 * std::numbers::pi), 2)},
      {0.1, 2, 5, 0.0925952589},
      {0.3, 2, 5, 0.1818034713},
      {0.5, 2, 5, 0.2644499833},
      {0.95, 0.2, 3, 0.3243985453},
      {0.05, 0.2, 3, 7.79795e-8},
  }};
  for (const Point& p : points) {
    EXPECT_NEAR((Beta{p.alpha, p.beta}.quantile(p.x)) / p.value, 1.0, 1e-6) << p.x;
  }
}

TEST(ElaBeta, QuantileUndoesTheDistributionFunction) {
  for (const double alpha : {0.2, 1.0, 2.5, 40.0}) {
    for (const double beta : {0.3, 1.0, 7.0}) {
      const Beta distribution{alpha, beta};
      double before = 0;
      for (double x = 0.05; x < 0.96; x += 0.1) {
        const double p = distribution.cdf(x);
        EXPECT_GE(p, before);
        before = p;
        EXPECT_NEAR(p, 1.0 - (Beta{beta, alpha}.cdf(1.0 - x)), 1e-12);
        if (p < 1e-6 || p > 1.0 - 1e-6) continue;  // flat there: x is lost in the rounding of p
        EXPECT_NEAR(distribution.quantile(p), x, 1e-9);
      }
    }
  }
}

TEST(ElaBeta, FitHasTheGivenMoments) {
  // Mean 0.31 and population variance 0.0744 of 0.05, 0.10, 0.20, 0.40, 0.80.
  const Beta fit = fit_by_moments(0.31, 0.0744);
  EXPECT_NEAR(fit.alpha, 0.58125, 1e-12);
  EXPECT_NEAR(fit.beta, 1.29375, 1e-12);
  EXPECT_NEAR(fit.mean(), 0.31, 1e-12);
  EXPECT_NEAR(fit.variance(), 0.0744, 1e-12);
  const std::array<double, 5> z{0.05, 0.10, 0.20, 0.40, 0.80};
  const std::array<double, 5> expected{0.2075222, 0.3087403, 0.4565142, 0.6654720, 0.9298320};
  for (std::size_t i = 0; i < z.size(); ++i) EXPECT_NEAR(fit.cdf(z[i]), expected[i], 1e-7);
  EXPECT_NEAR(fit.quantile(0.3), 0.0950876097, 1e-9);
  EXPECT_NEAR(fit.quantile(0.5), 0.2356602782, 1e-9);
}

TEST(ElaBeta, ParametersAreClamped) {
  // Almost all mass at the ends, and almost no spread.
  EXPECT_EQ(fit_by_moments(0.5, 0.2499).alpha, 0.05);
  EXPECT_EQ(fit_by_moments(0.5, 1e-9).beta, 1e4);
}

}  // namespace
}  // namespace ablate::methods::ela
