#include <vector>

#include "methods/models/batch_norm.h"
#include "methods/models/fused/fused_ops.h"
#include "methods/models/ops.h"

namespace ablate::ops {
namespace {

constexpr bool kConvFusable = ABLATE_HAS_CUDA != 0;

/// max_pool2d(x, 3, 2, 1) of values that are not negative. On CUDA its backward adds atomically, in
/// any order; the maximum over nine shifted maps does not.
at::Tensor max_pool(const at::Tensor& x) {
  if (!x.is_cuda()) return at::max_pool2d(x, 3, 2, 1);
  const at::Tensor padded = at::constant_pad_nd(x, {1, 1, 1, 1});
  const std::int64_t height = (x.size(2) - 1) / 2 + 1, width = (x.size(3) - 1) / 2 + 1;
  std::vector<at::Tensor> taps;
  for (std::int64_t i = 0; i < 9; ++i) {
    taps.push_back(padded.slice(2, i / 3, i / 3 + 2 * height - 1, 2)
                       .slice(3, i % 3, i % 3 + 2 * width - 1, 2));
  }
  return std::get<0>(at::stack(taps).max(0));
}

}  // namespace

at::Tensor conv2d(const at::Tensor& x, const Conv2d& conv, ForwardState& state) {
  if constexpr (kConvFusable) {
    if (state.fused) return fused::conv2d(x, conv, *state.fused);
  }
  return conv.forward(x);
}

at::Tensor conv2d_images(const at::Tensor& images, const Conv2d& conv, ForwardState& state) {
  if constexpr (kConvFusable) {
    if (state.fused) return fused::conv2d_images(images, conv, *state.fused);
  }
  return conv.forward(images);
}

at::Tensor batch_norm(const at::Tensor& x, GroupBatchNorm2d& norm, ForwardState& state) {
  return norm.forward(x, state);
}

at::Tensor batch_norm_relu(const at::Tensor& x, GroupBatchNorm2d& norm, ForwardState& state) {
  if constexpr (kConvFusable) {
    if (state.fused) return fused::batch_norm_relu(x, norm, state);
  }
  return norm.forward(x, state).relu_();
}

Fork batch_norm_add_relu(const at::Tensor& x, GroupBatchNorm2d& norm, const Shortcut& shortcut,
                         ForwardState& state) {
  if constexpr (kConvFusable) {
    if (state.fused) return fused::batch_norm_add_relu(x, norm, shortcut, state);
  }
  at::Tensor y = norm.forward(x, state);
  y.add_(shortcut.norm ? shortcut.norm->forward(shortcut.x, state) : shortcut.x).relu_();
  return {y, y};
}

Fork batch_norm_relu_pool(const at::Tensor& x, GroupBatchNorm2d& norm, ForwardState& state) {
  if constexpr (kConvFusable) {
    if (state.fused) return fused::batch_norm_relu_pool(x, norm, state);
  }
  const at::Tensor y = max_pool(norm.forward(x, state).relu_());
  return {y, y};
}

}  // namespace ablate::ops
