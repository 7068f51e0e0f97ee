#pragma once

#include <cstdint>
#include <list>

#include "methods/models/device_constant.h"
#include "runner/torch/torch.h"

namespace ablate {

/// Places of a map.
struct MapSize {
  std::int64_t height, width;

  std::int64_t places() const { return height * width; }
  bool operator==(const MapSize&) const = default;
};

/// How the tokens of a map, row by row, are cut into equal windows. A map that they do not fill is
/// padded by zeros at the bottom and on the right. With a shift the map is first moved up and left
/// by it, what leaves it coming in again on the other side (Liu et al., "Swin Transformer", ICCV
/// 2021).
class Windows {
 public:
  Windows(MapSize map, MapSize window, std::int64_t shift = 0);

  std::int64_t count() const { return padded_.places() / area(); }
  std::int64_t area() const { return window_.places(); }
  std::int64_t height() const { return window_.height; }
  std::int64_t width() const { return window_.width; }
  const MapSize& map() const { return map_; }
  /// One window, which is the map as it stands.
  bool whole() const { return !order_.defined() && count() == 1 && map_ == padded_; }

  /// (B, tokens, ..) -> (B count(), area(), ..), in one copy, or two where the map is padded.
  at::Tensor cut(const at::Tensor& tokens);
  /// The way back.
  at::Tensor join(const at::Tensor& windows);
  /// (count(), area(), area()), to be added to logits: -100 between tokens that are neighbours only
  /// by the shift, else 0. Undefined without shift.
  at::Tensor mask(const at::TensorOptions& options);

 private:
  MapSize map_, window_, padded_;
  std::int64_t shift_;
  DeviceConstant order_, inverse_;  // of tokens; undefined where windows leave it as it is
  DeviceConstant mask_;
};

/// The same of maps of whatever size.
class AnyWindows {
 public:
  /// A side of 0 is that of the map. `born`: the size that training and classification have.
  AnyWindows(MapSize born, MapSize window, std::int64_t shift = 0);

  /// Of the born size. It lives as long as this, as captured graphs need it.
  Windows& born() { return known_.front(); }
  const Windows& born() const { return known_.front(); }
  /// Of a map of so many tokens, in rows of equal length; a height of 0 means the born size.
  Windows& of(std::int64_t tokens, std::int64_t height);

 private:
  MapSize window_;
  std::int64_t shift_;
  std::list<Windows> known_;
};

}  // namespace ablate
