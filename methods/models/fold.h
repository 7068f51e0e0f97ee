#pragma once

#include <map>
#include <string>

#include "methods/models/model.h"

namespace ablate {

/// What a fold changed besides weights.
struct Fold {
  double scale = 1.0;  ///< the residual stream after the last block, before / after the fold
  /// eps of the norms that differ from the model's own, by module name ("blocks.5.norm2").
  std::map<std::string, double> norm_eps;
};

/// Removes the doublings that dilution leaves at blocks without attention (x <- 2x, Lin et al.,
/// CVPR 2024): with k doublings so far, everything written to the residual stream is multiplied by
/// 2^-k and the eps of every norm that reads it by 4^-k. All factors are powers of two, so the
/// logits stay the same bit for bit, and the stream no longer grows out of half precision; what a
/// dense model reads of it is multiplied by 2^k. Final skip gains are 1.
///
/// Throws Error when a gain is between 0 and 1 (a dilution under way) or no power of two.
Fold fold_doublings(Model& model);

}  // namespace ablate
