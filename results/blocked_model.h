#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "results/statistics.h"

namespace ablate {

/// One run: variant and seed by index; at most one for each pair of them.
struct Observation {
  std::size_t variant = 0;
  std::size_t block = 0;
  double value = 0;
};

/// One variant against the baseline.
struct Contrast {
  std::size_t pairs = 0;       ///< blocks that hold both
  double difference = 0;       ///< variant - baseline, by least squares
  double variance_factor = 0;  ///< var(difference) / residual variance; 2 / n in complete blocks
  std::optional<TTest> test;   ///< none without residual degrees of freedom
};

/// The additive two-way model value = variant + block + noise of equal variance (a randomised
/// complete block design, e.g. Montgomery, Design and Analysis of Experiments, chapter 4), by least
/// squares, hence also for incomplete blocks.
///
/// Only what is connected to the baseline through common blocks can be compared with it; the rest
/// is left out, also of the residual.
struct BlockedModel {
  std::size_t variants = 0, blocks = 0, observations = 0;  ///< connected to the baseline
  bool complete = true;                                    ///< every variant in every block
  double df = 0;           ///< observations - variants - blocks + 1; (k-1)(n-1) in complete blocks
  double ss_variants = 0;  ///< adjusted for blocks, on variants - 1 degrees of freedom
  double ss_residual = 0;
  double residual_sd = 0;                          ///< 0 when df = 0
  std::vector<std::optional<Contrast>> contrasts;  ///< by variant; none for the baseline and for
                                                   ///< variants that are not connected to it
};

/// Fits the model. `variants` counts the indices in use (variants without an observation are
/// allowed); contrasts have intervals of the given level.
BlockedModel fit_blocked_model(std::span<const Observation> observations, std::size_t variants,
                               std::size_t baseline, double level = 0.95);

}  // namespace ablate
