#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "runner/core/params.h"
#include "runner/torch/torch.h"

namespace ablate {

/// A dense model in evaluation: images (B, 3, h, w) to logits (B, K, h / stride, w / stride).
using DenseNetwork = std::function<at::Tensor(const at::Tensor& images)>;

/// How classes of pixels are asked of a dense model, as mmsegmentation does it.
struct DenseInference {
  bool sliding = false;             ///< windows instead of the whole image
  std::int64_t crop = 512;          ///< side of windows
  std::int64_t stride = 341;        ///< from window to window
  std::vector<double> ratios{1.0};  ///< sizes that the image is seen at
  bool flip = false;                ///< also its mirror image

  /// Reads `inference`, `crop`, `stride`, `ratios` and `flip`.
  static DenseInference read(Params& params);
};

/// Where windows begin along an axis, each `crop` long and inside: at multiples of the stride, the
/// last at the end. One window, as long as the axis, where that is shorter.
std::vector<std::int64_t> window_starts(std::int64_t length, std::int64_t crop,
                                        std::int64_t stride);

/// Scores of classes for each pixel of images at their original size. What the network said is kept
/// as small as it came, or, of windows, at the size that it was asked at; scores of pixels are made
/// some rows at a time.
class DenseScores {
 public:
  /// Of images (B, 3, h, w), normalised, at the size that they are tested at, which `ratios` are
  /// about; height x width is their original size. Logits are interpolated bilinearly to the size
  /// the network was asked at, there averaged over windows, then interpolated to the original size.
  DenseScores(const DenseNetwork& network, const at::Tensor& images, std::int64_t height,
              std::int64_t width, const DenseInference& inference);

  /// Of some rows of the images, (B, K, count, width): logits, or the mean of probabilities where
  /// several sizes or mirror images were asked.
  at::Tensor rows(std::int64_t first, std::int64_t count) const;
  /// The best class of each pixel, (B, height, width) int64; memory is bounded whatever the size.
  at::Tensor labels() const;

 private:
  /// One answer, with what makes rows and columns of the original size of its own.
  struct View {
    at::Tensor logits, rows, columns;
    bool flipped;
  };
  View whole(const DenseNetwork& network, const at::Tensor& images) const;
  View sliding(const DenseNetwork& network, const at::Tensor& images) const;

  std::int64_t height_, width_, crop_, stride_;
  std::vector<View> views_;
};

/// All rows: (B, K, height, width).
at::Tensor dense_logits(const DenseNetwork& network, const at::Tensor& images, std::int64_t height,
                        std::int64_t width, const DenseInference& inference);

}  // namespace ablate
