#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "methods/models/model.h"
#include "runner/torch/torch.h"

#if ABLATE_HAS_CUDA

#include "methods/models/fused/context.h"

// Passes by fused operations beside those by plain ones.

namespace ablate::test {

/// Fused operations add their gradients where plain ones do: in `.grad`, which is there.
inline void bind_parameters(FusedContext& context, Model& model) {
  for (const at::Tensor& parameter : model.parameters()) {
    context.bind(parameter,
                 {.working = parameter.detach().to(at::kBFloat16), .gradient = parameter.grad()});
  }
}

inline at::Tensor flat_of(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& tensor : tensors) parts.push_back(tensor.flatten());
  return at::cat(parts);
}

/// ||value - truth|| / ||truth||, in double on the CPU.
inline double relative_distance(const at::Tensor& value, const at::Tensor& truth) {
  const at::Tensor exact = truth.to(at::kDouble).cpu();
  return ((value.to(at::kDouble).cpu() - exact).norm() / exact.norm()).item<double>();
}

/// Expects the parameters of `model` to have a gradient in `a` exactly where they have one in `b`.
inline void expect_gradients_in_the_same_places(Model& model, const std::vector<at::Tensor>& a,
                                                const std::vector<at::Tensor>& b) {
  const auto names = model.named_parameters();
  ASSERT_EQ(a.size(), names.size());
  ASSERT_EQ(b.size(), names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(a[i].abs().max().item<double>() > 0.0, b[i].abs().max().item<double>() > 0.0)
        << names[i].key();
  }
}

}  // namespace ablate::test

#endif  // ABLATE_HAS_CUDA
