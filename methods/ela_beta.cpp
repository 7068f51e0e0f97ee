#include "methods/ela_beta.h"

#include <algorithm>

#include <boost/math/special_functions/beta.hpp>

#include "runner/core/error.h"

namespace ablate::methods::ela {

double Beta::cdf(double x) const { return boost::math::ibeta(alpha, beta, x); }

double Beta::quantile(double p) const { return boost::math::ibeta_inv(alpha, beta, p); }

Beta fit_by_moments(double mean, double variance) {
  constexpr double kSmallest = 0.05, kLargest = 1e4;
  ABLATE_CHECK(mean > 0.0 && mean < 1.0 && variance > 0.0, "mean ", mean, ", variance ", variance);
  const double kappa = mean * (1.0 - mean) / variance - 1.0;
  return {std::clamp(mean * kappa, kSmallest, kLargest),
          std::clamp((1.0 - mean) * kappa, kSmallest, kLargest)};
}

}  // namespace ablate::methods::ela
