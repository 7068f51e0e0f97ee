#pragma once

#include <cstdint>

#include "methods/models/device_constant.h"
#include "runner/torch/torch.h"

namespace ablate {

/// How the tokens of a square map, row by row, are cut into equal windows. With a shift the map is
/// first moved up and left by it, what leaves it coming in again on the other side (Liu et al.,
/// "Swin Transformer", ICCV 2021).
class Windows {
 public:
  /// `height` x `width` must divide the map.
  Windows(std::int64_t map_side, std::int64_t height, std::int64_t width, std::int64_t shift = 0);
  /// One window, which is the map.
  explicit Windows(std::int64_t map_side) : Windows(map_side, map_side, map_side) {}

  std::int64_t count() const { return map_side_ * map_side_ / area(); }
  std::int64_t area() const { return height_ * width_; }
  std::int64_t height() const { return height_; }
  std::int64_t width() const { return width_; }
  std::int64_t shift() const { return shift_; }

  /// (B, tokens, ..) -> (B count(), area(), ..), in one copy.
  at::Tensor cut(const at::Tensor& tokens);
  /// The way back.
  at::Tensor join(const at::Tensor& windows);
  /// (count(), area(), area()), to be added to logits: -100 between tokens that are neighbours only
  /// by the shift, else 0. Undefined without shift.
  at::Tensor mask(const at::TensorOptions& options);

 private:
  std::int64_t map_side_, height_, width_, shift_;
  DeviceConstant order_, inverse_;  // of tokens; undefined where windows leave it as it is
  DeviceConstant mask_;
};

}  // namespace ablate
