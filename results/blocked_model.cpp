#include "results/blocked_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

/// The observations connected to the baseline, with dense indices.
struct Layout {
  std::vector<Observation> observations;
  std::vector<std::size_t> variant_of;  ///< dense -> given
  std::vector<std::size_t> dense_of;    ///< given -> dense or kNone
  std::size_t blocks = 0;
};

/// Marks what can be reached from the baseline by "runs in a common block".
void mark_connected(std::span<const Observation> all, std::vector<char>& variant_in,
                    std::vector<char>& block_in) {
  for (bool grown = true; grown;) {
    grown = false;
    for (const Observation& o : all) {
      if (variant_in[o.variant] == block_in[o.block]) continue;
      variant_in[o.variant] = block_in[o.block] = 1;
      grown = true;
    }
  }
}

Layout connected_layout(std::span<const Observation> all, std::size_t variants,
                        std::size_t baseline) {
  std::size_t blocks = 0;
  for (const Observation& o : all) {
    ABLATE_CHECK(o.variant < variants && std::isfinite(o.value), "variant ", o.variant);
    blocks = std::max(blocks, o.block + 1);
  }
  std::vector<char> variant_in(variants, 0), block_in(blocks, 0);
  variant_in[baseline] = 1;
  mark_connected(all, variant_in, block_in);

  Layout layout;
  layout.dense_of.assign(variants, kNone);
  std::vector<std::size_t> block_of(blocks, kNone);
  for (const Observation& o : all) {
    if (!variant_in[o.variant]) continue;
    if (layout.dense_of[o.variant] == kNone) {
      layout.dense_of[o.variant] = layout.variant_of.size();
      layout.variant_of.push_back(o.variant);
    }
    if (block_of[o.block] == kNone) block_of[o.block] = layout.blocks++;
    layout.observations.push_back({layout.dense_of[o.variant], block_of[o.block], o.value});
  }
  return layout;
}

/// Row-major square matrix; just what the normal equations need.
struct Matrix {
  explicit Matrix(std::size_t size) : n(size), data(size * size, 0.0) {}
  double& at(std::size_t row, std::size_t column) { return data[row * n + column]; }
  double at(std::size_t row, std::size_t column) const { return data[row * n + column]; }
  std::size_t n;
  std::vector<double> data;
};

/// In-place Cholesky factor of a positive definite matrix.
void factorize(Matrix& m) {
  for (std::size_t j = 0; j < m.n; ++j) {
    for (std::size_t i = j; i < m.n; ++i) {
      double sum = m.at(i, j);
      for (std::size_t k = 0; k < j; ++k) sum -= m.at(i, k) * m.at(j, k);
      if (i == j) {
        ABLATE_CHECK(sum > 0, "normal equations of a connected layout are definite");
        m.at(j, j) = std::sqrt(sum);
      } else {
        m.at(i, j) = sum / m.at(j, j);
      }
    }
  }
}

/// L^-1 x for the factor L.
std::vector<double> forward_solve(const Matrix& factor, std::vector<double> x) {
  for (std::size_t i = 0; i < factor.n; ++i) {
    for (std::size_t k = 0; k < i; ++k) x[i] -= factor.at(i, k) * x[k];
    x[i] /= factor.at(i, i);
  }
  return x;
}

std::vector<double> solve(const Matrix& factor, std::vector<double> x) {
  x = forward_solve(factor, std::move(x));
  for (std::size_t i = factor.n; i-- > 0;) {
    for (std::size_t k = i + 1; k < factor.n; ++k) x[i] -= factor.at(k, i) * x[k];
    x[i] /= factor.at(i, i);
  }
  return x;
}

/// Least squares with the variants eliminated: seeds are few where variants may be a thousand. The
/// effect of block 0 is fixed at 0, which makes the other block effects estimable.
struct Fit {
  std::vector<double> count, total;         ///< by variant
  std::vector<std::vector<double>> within;  ///< [variant][block - 1]: observations of it there
  Matrix factor{0};                         ///< of the reduced normal equations of blocks 1...
  std::vector<double> block_effect;         ///< block 0 included
  std::vector<double> variant_effect;
  double grand_mean = 0;
};

Fit least_squares(const Layout& layout) {
  const std::size_t k = layout.variant_of.size(), b = layout.blocks - 1;
  Fit fit;
  fit.count.assign(k, 0);
  fit.total.assign(k, 0);
  fit.within.assign(k, std::vector<double>(b, 0));
  fit.factor = Matrix(b);
  for (const Observation& o : layout.observations) fit.grand_mean += o.value;
  fit.grand_mean /= static_cast<double>(layout.observations.size());

  std::vector<double> right(b, 0);
  for (const Observation& o : layout.observations) {
    const double value = o.value - fit.grand_mean;
    fit.count[o.variant] += 1;
    fit.total[o.variant] += value;
    if (o.block == 0) continue;
    fit.within[o.variant][o.block - 1] += 1;
    fit.factor.at(o.block - 1, o.block - 1) += 1;
    right[o.block - 1] += value;
  }
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t p = 0; p < b; ++p) {
      const double share = fit.within[i][p] / fit.count[i];
      right[p] -= share * fit.total[i];
      for (std::size_t q = 0; q < b; ++q) fit.factor.at(p, q) -= share * fit.within[i][q];
    }
  }
  factorize(fit.factor);
  fit.block_effect = solve(fit.factor, std::move(right));
  fit.block_effect.insert(fit.block_effect.begin(), 0.0);
  for (std::size_t i = 0; i < k; ++i) {
    double effect = fit.total[i];
    for (std::size_t j = 0; j < b; ++j) effect -= fit.within[i][j] * fit.block_effect[j + 1];
    fit.variant_effect.push_back(effect / fit.count[i]);
  }
  return fit;
}

/// Sums of squares: residual of the full model, and what the variants add over blocks alone.
void sums_of_squares(const Layout& layout, const Fit& fit, BlockedModel& model) {
  std::vector<double> sum(layout.blocks, 0), count(layout.blocks, 0);
  for (const Observation& o : layout.observations) {
    sum[o.block] += o.value - fit.grand_mean;
    count[o.block] += 1;
  }
  double blocks_only = 0, scale = 0;
  for (const Observation& o : layout.observations) {
    const double value = o.value - fit.grand_mean;
    const double full = value - fit.variant_effect[o.variant] - fit.block_effect[o.block];
    const double reduced = value - sum[o.block] / count[o.block];
    model.ss_residual += full * full;
    blocks_only += reduced * reduced;
    scale += o.value * o.value;
  }
  // Exactly additive data leave only rounding behind, which must not pass for noise.
  if (model.ss_residual <= 1e-24 * scale) model.ss_residual = 0;
  model.ss_variants = std::max(0.0, blocks_only - model.ss_residual);
}

/// By variant, the blocks it shares with the baseline.
std::vector<std::size_t> common_blocks(const Layout& layout, std::size_t baseline) {
  std::vector<char> has_baseline(layout.blocks, 0);
  for (const Observation& o : layout.observations) {
    if (o.variant == baseline) has_baseline[o.block] = 1;
  }
  std::vector<std::size_t> common(layout.variant_of.size(), 0);
  for (const Observation& o : layout.observations) common[o.variant] += has_baseline[o.block];
  return common;
}

Contrast contrast(const Fit& fit, const BlockedModel& model, std::size_t variant,
                  std::size_t baseline, double critical) {
  Contrast result;
  result.difference = fit.variant_effect[variant] - fit.variant_effect[baseline];
  std::vector<double> imbalance(fit.within[variant].size());
  for (std::size_t j = 0; j < imbalance.size(); ++j) {
    imbalance[j] =
        fit.within[variant][j] / fit.count[variant] - fit.within[baseline][j] / fit.count[baseline];
  }
  imbalance = forward_solve(fit.factor, std::move(imbalance));
  result.variance_factor =
      std::inner_product(imbalance.begin(), imbalance.end(), imbalance.begin(), 0.0) +
      1 / fit.count[variant] + 1 / fit.count[baseline];
  if (model.df > 0) {
    const double se = model.residual_sd * std::sqrt(result.variance_factor);
    result.test = t_test_with_critical(result.difference, se, model.df, critical);
  }
  return result;
}

}  // namespace

BlockedModel fit_blocked_model(std::span<const Observation> observations, std::size_t variants,
                               std::size_t baseline, double level) {
  ABLATE_CHECK(baseline < variants);
  const Layout layout = connected_layout(observations, variants, baseline);
  BlockedModel model;
  model.contrasts.resize(variants);
  if (layout.observations.empty()) return model;
  model.variants = layout.variant_of.size();
  model.blocks = layout.blocks;
  model.observations = layout.observations.size();
  model.complete = model.observations == model.variants * model.blocks;
  model.df = static_cast<double>(model.observations + 1 - model.variants - model.blocks);

  const Fit fit = least_squares(layout);
  sums_of_squares(layout, fit, model);
  if (model.df > 0) model.residual_sd = std::sqrt(model.ss_residual / model.df);
  const std::size_t base = layout.dense_of[baseline];
  const std::vector<std::size_t> common = common_blocks(layout, base);
  const double critical = model.df > 0 ? t_critical(model.df, level) : 0;
  for (std::size_t i = 0; i < model.variants; ++i) {
    if (i == base) continue;
    Contrast made = contrast(fit, model, i, base, critical);
    made.pairs = common[i];
    model.contrasts[layout.variant_of[i]] = made;
  }
  return model;
}

}  // namespace ablate
