#include "methods/ela_mapping.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runner/core/error.h"

namespace ablate::methods::ela {
namespace {

constexpr double kEdge = 1e-4;           // z stays that far from 0 and 1
constexpr double kNoVariance = 1e-8;     // of z: nothing to fit
constexpr double kNoSpread = 1e-12;      // of 1 - exp(-D) over samples: all alike
constexpr std::size_t kFewestToFit = 3;  // candidates

void check(const std::vector<LayerMoments>& layers) {
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const double mean = layers[i].mean;
    if (std::isfinite(mean) && mean >= 0.0 && std::isfinite(layers[i].bounded)) continue;
    throw Error(cat("the divergence of candidate ", i, " is ", mean,
                    "; a decision needs finite divergences that are not negative"));
  }
}

/// Probability `confidence` that a sample's 1 - exp(-D) lies below.
double layer_quantile(const LayerMoments& layer, double confidence) {
  const double variance = layer.bounded_square - layer.bounded * layer.bounded;
  if (variance < kNoSpread || layer.bounded <= 0.0 || layer.bounded >= 1.0) return layer.bounded;
  return fit_by_moments(layer.bounded, variance).quantile(confidence);
}

std::vector<double> statistics(const MappingSettings& settings,
                               const std::vector<LayerMoments>& layers) {
  std::vector<double> x;
  for (const LayerMoments& layer : layers) {
    x.push_back(settings.statistic == Statistic::Mean ? layer.mean
                                                      : layer_quantile(layer, settings.confidence));
  }
  return x;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

/// Empty when there is no scale: the median layer is indistinguishable from its neighbour.
std::vector<double> bounded(Scale scale, const std::vector<double>& x) {
  const double middle = scale == Scale::Median ? median(x) : 0.0;
  if (scale == Scale::Median && middle <= 0.0) return {};
  std::vector<double> z;
  for (const double value : x) {
    const double raw =
        scale == Scale::Median ? 1.0 - std::exp2(-value / middle) : -std::expm1(-value);
    z.push_back(std::clamp(raw, kEdge, 1.0 - kEdge));
  }
  return z;
}

/// Replaces the scores by the fitted distribution function; false when nothing can be fitted.
bool fit_source(const MappingSettings& settings, Mapping& mapping) {
  if (mapping.score.size() < kFewestToFit) return false;
  const std::vector<double> z = bounded(settings.scale, mapping.score);
  if (z.empty()) return false;
  const auto count = static_cast<double>(z.size());
  const double mean = std::accumulate(z.begin(), z.end(), 0.0) / count;
  double variance = 0;
  for (const double value : z) variance += (value - mean) * (value - mean) / count;
  if (variance < kNoVariance) return false;
  mapping.z = z;
  mapping.fit = fit_by_moments(mean, variance);
  const double limit = std::clamp(settings.limit, 0.0, 1.0);
  mapping.tau = mapping.fit.quantile(settings.beta_target ? settings.target.cdf(limit) : limit);
  for (std::size_t i = 0; i < z.size(); ++i) mapping.score[i] = mapping.fit.cdf(z[i]);
  return true;
}

/// (r - 1/2) / N, ties sharing their mean rank.
void rank_scores(std::vector<double>& scores) {
  const std::vector<double> x = scores;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto less =
        static_cast<double>(std::ranges::count_if(x, [&](double v) { return v < x[i]; }));
    const auto equal = static_cast<double>(std::ranges::count(x, x[i]));
    scores[i] = (less + equal / 2) / static_cast<double>(x.size());
  }
}

/// The `count` smallest, the earlier of equal ones.
std::vector<bool> smallest(const std::vector<double>& scores, std::int64_t count) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return scores[i]; });
  std::vector<bool> chosen(scores.size());
  const auto wanted = std::min(static_cast<std::size_t>(count), scores.size());
  for (std::size_t i = 0; i < wanted; ++i) chosen[order[i]] = true;
  return chosen;
}

void apply_rule(const MappingSettings& settings, Mapping& mapping) {
  if (settings.rule == Rule::Smallest) {
    mapping.flagged = smallest(mapping.score, settings.count);
    mapping.clear = mapping.flagged;
    mapping.clear.flip();
    return;
  }
  for (const double score : mapping.score) {
    mapping.flagged.push_back(score <= settings.limit);
    mapping.clear.push_back(score > settings.limit + settings.hysteresis);
  }
}

bool all_equal(const std::vector<double>& x) {
  return std::ranges::adjacent_find(x, std::ranges::not_equal_to()) == x.end();
}

}  // namespace

Mapping map_divergences(const MappingSettings& settings, const std::vector<LayerMoments>& layers) {
  check(layers);
  Mapping mapping;
  mapping.score = statistics(settings, layers);
  // An absolute limit means something for a single layer, too; everything else compares layers.
  const bool absolute = settings.source == Source::None && settings.rule == Rule::Below;
  if (layers.empty() || (!absolute && all_equal(mapping.score))) return mapping;
  if (settings.source == Source::Beta && !fit_source(settings, mapping)) return mapping;
  if (settings.source == Source::Empirical) rank_scores(mapping.score);
  if (settings.source != Source::None && settings.beta_target) {
    for (double& score : mapping.score) score = settings.target.quantile(score);
  }
  apply_rule(settings, mapping);
  mapping.decides = true;
  return mapping;
}

}  // namespace ablate::methods::ela
