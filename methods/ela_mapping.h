#pragma once

#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "methods/ela_beta.h"

// From divergences of neighbouring layers to layers that may be skipped: quantile mapping,
//
//   statistic x -> bounded z in (0, 1) -> F_source(z) -> Q_target -> score -> rule
//
// of which every reading of "enhanced Beta quantile mapping" is a setting. The paper's own formulas
// are not public; all of this is our reconstruction.

namespace ablate::methods::ela {

/// Means over the samples and heads of an epoch, of one candidate.
struct LayerMoments {
  double mean = 0;            ///< of the divergence D, clipped
  double square = 0;          ///< of D^2
  double bounded = 0;         ///< of 1 - exp(-D)
  double bounded_square = 0;  ///< of its square
};

enum class Statistic {
  Mean,      ///< of D
  Quantile,  ///< upper quantile of 1 - exp(-D) over samples, of a Beta fitted to its moments
};
enum class Scale {
  None,    ///< z = 1 - exp(-x)
  Median,  ///< z = 1 - 2^(-x / median): the median layer at 1/2, units of x do not matter
};
enum class Source { None, Empirical, Beta };
enum class Rule {
  Below,      ///< score <= limit
  Smallest,   ///< the `count` smallest scores
  Bernoulli,  ///< at random with probability 1 - score
};

struct MappingSettings {
  Statistic statistic = Statistic::Mean;
  double confidence = 0.9;  ///< of Statistic::Quantile
  Scale scale = Scale::Median;
  Source source = Source::Beta;  ///< None: the score is x itself
  bool beta_target = false;      ///< the score is Q_target(F) instead of F
  Beta target{2.0, 5.0};
  Rule rule = Rule::Below;
  double limit = 0.4;
  double hysteresis = 0.0;
  std::int64_t count = 0;
};

/// What a decision found, an entry for each candidate.
struct Mapping {
  /// False: the candidates are too few or cannot be told apart, and an earlier mask stays; only
  /// `score` (x itself then) is filled.
  bool decides = false;
  std::vector<double> z{};      ///< empty without a Beta source
  std::vector<double> score{};  ///< smaller: more redundant
  std::vector<bool> flagged{};  ///< redundant by the rule (but for Bernoulli)
  std::vector<bool> clear{};    ///< not redundant, by more than the hysteresis
  // Of a Beta source: the fit, and where z makes the score the limit: score <= limit is z <= tau.
  Beta fit{std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
  double tau = std::numeric_limits<double>::quiet_NaN();
};

/// Throws Error when a moment is not a number or negative.
Mapping map_divergences(const MappingSettings& settings, const std::vector<LayerMoments>& layers);

}  // namespace ablate::methods::ela
