#pragma once

#include "methods/models/model.h"

namespace ablate {

/// A base of models whose fused operations round images to bfloat16 before anything else, so that
/// they may come so.
class HalfImages {
 public:
  virtual ~HalfImages() = default;
};

inline bool takes_half_images(const Model& model) {
  return dynamic_cast<const HalfImages*>(&model) != nullptr;
}

}  // namespace ablate
