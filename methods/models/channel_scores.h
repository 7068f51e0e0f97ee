#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runner/torch/torch.h"

namespace ablate {

class Params;

/// How the heads of an attention are made to lose channels in equal numbers.
enum class HeadBalance {
  Shift,  ///< scores of a head are shifted until as many as in the mean reach the threshold
  Rank,   ///< the r-th largest score of every head becomes their mean over the heads
  Multiplicative,  ///< as Shift, by a factor
  None,            ///< each of several heads as its scores say (a control)
};

/// Gradient of the step function.
enum class StepGradient {
  Plain,    ///< 1
  Clipped,  ///< 1 within 1 of the threshold, else 0
  Sigmoid,  ///< that of a sigmoid of the given temperature
};

/// How scores decide which channels take part (Lee and Hwang, arXiv 2405.20867; formulas by our
/// reconstruction).
struct GateRule {
  double threshold = 0.5;
  HeadBalance balance = HeadBalance::Shift;
  StepGradient gradient = StepGradient::Plain;
  double temperature = 0.1;
  double min_share = 0.125;         ///< of a head's channels that always stay; at least one does
  std::int64_t width_multiple = 1;  ///< of the channels of all heads together, as far as possible

  /// Reads threshold, head_balance, step_gradient, temperature, min_share and width_multiple.
  static GateRule read(Params& params);

  /// Numbers of channels that a head of `width` may keep: multiples of the first up to the second,
  /// and the whole width.
  std::int64_t step(std::int64_t heads) const;
  std::int64_t least(std::int64_t heads, std::int64_t width) const;
  /// The allowed number next to `count`, halves upwards.
  std::int64_t allowed(double count, std::int64_t heads, std::int64_t width) const;
};

struct GateDecision {
  at::Tensor adjusted;  ///< scores after balancing, without gradient
  at::Tensor kept;      ///< 0 or 1
};

/// Scores (seats, heads, width), weighted by similarity -> who is kept. Balanced heads keep equally
/// many, the best by (score, lower index). No gradient; does not synchronise with the host.
GateDecision decide_gates(const at::Tensor& scores, const GateRule& rule);

/// The gates: values `kept`, gradient with respect to `scores` that of the rule.
at::Tensor straight_through(const at::Tensor& scores, const GateDecision& decision,
                            const GateRule& rule);

}  // namespace ablate
