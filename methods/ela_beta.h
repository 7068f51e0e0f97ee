#pragma once

namespace ablate::methods::ela {

/// A Beta distribution on (0, 1).
struct Beta {
  double alpha = 1.0, beta = 1.0;
  bool operator==(const Beta&) const = default;

  double mean() const { return alpha / (alpha + beta); }
  double variance() const {
    const double sum = alpha + beta;
    return alpha * beta / (sum * sum * (sum + 1.0));
  }
  /// P(X <= x): the regularised incomplete beta function.
  double cdf(double x) const;
  /// Its inverse: the smallest x with cdf(x) >= p.
  double quantile(double p) const;
};

/// The Beta distribution of this mean and variance (method of moments), both parameters clamped to
/// [0.05, 1e4]. `mean` in (0, 1), 0 < `variance` < mean (1 - mean).
Beta fit_by_moments(double mean, double variance);

}  // namespace ablate::methods::ela
