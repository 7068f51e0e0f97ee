#pragma once

#include <string>
#include <utility>
#include <vector>

#include "methods/method_stack.h"
#include "tests/support/method_context.h"
#include "tests/support/models.h"

namespace ablate::test {

inline MethodStack make_nose(const std::string& settings) {
  return MethodStack({method_component("name = 'nose'\n" + settings)});
}

/// 24 images for golden_vit in batches of 5, the last one padded.
inline std::vector<std::pair<at::Tensor, at::Tensor>> golden_batches() {
  const at::Tensor images = wavy_images(25, 32, at::kDouble);
  at::Tensor weights = at::ones({25});
  weights[24] = 0.F;
  std::vector<std::pair<at::Tensor, at::Tensor>> batches;
  for (std::int64_t first = 0; first < 25; first += 5) {
    batches.emplace_back(images.narrow(0, first, 5), weights.narrow(0, first, 5));
  }
  return batches;
}

}  // namespace ablate::test
