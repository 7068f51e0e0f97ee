#pragma once

#include <cstdint>
#include <vector>

#include "runner/torch/torch.h"

namespace ablate {

class Communicator;

/// How much of each spatial frequency is in feature maps: the amplitude of their two-dimensional
/// discrete Fourier transform, averaged over maps, channels and all frequencies of equal radius
/// rho = sqrt(u^2 + v^2) / (side / 2), in units of pi a sample. Of the radii that a grid has, those
/// are shown that come first at or behind 0, 0.1, .. 1 (for 14 x 14 tokens 0, 1/7, 0.202, .. as
/// Lin et al., CVPR 2024, have them).
class Spectrum {
 public:
  /// Maps (B, C, side, side), side at least 2 and the same in each call; those of weight (B) 0 do
  /// not count.
  void add(const at::Tensor& maps, const at::Tensor& weights);
  /// Adds up what all ranks have seen.
  void reduce(Communicator& communicator);

  std::int64_t maps() const;
  struct Point {
    double radius;
    double log_amplitude;  ///< natural logarithm of the mean amplitude
  };
  /// By rising radius. At least one map must have been added.
  std::vector<Point> points() const;

 private:
  at::Tensor sums_;  // (side, side) double: amplitudes summed over maps and channels
  double channels_ = 0, maps_ = 0;
};

}  // namespace ablate
