#pragma once

#include <cstdint>
#include <vector>

namespace ablate {

/// What a model gives as the backbone of a dense one.
enum class Features {
  None,
  OneStride,  ///< maps after blocks of choice, all of the stride of its patches
  Stages,     ///< a map a stage, each of twice the stride of the one before
};

/// Which maps a dense model reads of its backbone.
struct FeatureRequest {
  enum class Taps {
    Quarters,  ///< after each quarter of the depth: blocks 2, 5, 8 and 11 of 12
    Thirds,    ///< after a third, the half, two thirds and all of it: 3, 5, 7 and 11 of 12
    Last,      ///< after the last block
  };
  Taps taps = Taps::Quarters;
  /// Of backbones with one stride: blocks instead of those, rising, the last one among them.
  std::vector<std::int64_t> blocks{};
  /// Of backbones with one stride: the final norm on what the last block gives.
  bool final_norm = false;

  /// The blocks of a backbone of that depth. Throws SpecError when it has no such block.
  std::vector<std::int64_t> blocks_of(std::int64_t depth) const;
};

/// A map that a backbone gives: (B, channels, ceil(H / stride), ceil(W / stride)).
struct FeatureLevel {
  std::int64_t channels, stride;
};

}  // namespace ablate
