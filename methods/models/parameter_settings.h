#pragma once

#include <limits>

namespace ablate {

/// How training treats one parameter.
struct ParameterSettings {
  /// An inactive one is skipped by gradient norm, reducer, optimizer and EMA.
  bool active = true;
  double lr_factor = 1.0;
  double decay_factor = 1.0;
  // Bounds of its values, applied after each update.
  double clamp_low = -std::numeric_limits<double>::infinity();
  double clamp_high = std::numeric_limits<double>::infinity();
};

}  // namespace ablate
