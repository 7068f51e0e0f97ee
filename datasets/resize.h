#pragma once

#include <cstdint>
#include <vector>

#include "datasets/geometry.h"
#include "datasets/image.h"

namespace ablate {

enum class Filter { Bilinear, Bicubic };

/// Antialiased resampling to `width` x `height`, bit for bit what Image.resize of Pillow 9 gives
/// for 8-bit images: separable, rows first, fixed-point weights with 22 fraction bits, each pass
/// rounded to 8 bits, a pass that keeps its size left out. Bicubic has a = -0.5. (Pillow 13 takes
/// the cheaper pass first, which for tall images differs by one level here and there.)
Image resize(const Image& image, int width, int height, Filter filter);

/// The same for the part of `image` inside `box`: equal to cropping first and resizing then, so no
/// filter tap leaves the box. `box` must lie inside the image.
Image resize(const Image& image, const Box& box, int width, int height, Filter filter);

/// `window` of the image of size `target` that resize() makes of one of size `whole`.
struct ResizedWindow {
  Size whole, target;
  Box window;
  Filter filter = Filter::Bicubic;

  bool operator==(const ResizedWindow&) const = default;
};

/// The part of the whole image that the window depends on.
Box source_box(const ResizedWindow& resized);

/// Makes windows of resized images in memory that it keeps.
class Resizer {
 public:
  /// `image` holds the pixels of source_box(resized) from (left, top) on; it may hold others.
  void operator()(const ResizedWindow& resized, const Image& image, int left, int top, Image& out);

 private:
  /// Source pixels and fixed-point weights of every output pixel along one axis.
  struct Taps {
    int room = 0;  ///< for weights of one output pixel
    std::vector<int> first, count;
    std::vector<std::int32_t> weights;
    std::vector<double> raw;  ///< of one output pixel

    void make(int in, int out, int begin, int size, Filter filter);
    const std::int32_t* weights_of(int o) const {
      return weights.data() + static_cast<std::ptrdiff_t>(o) * room;
    }
  };

  void resample_rows(const ResizedWindow& resized, const Box& source, const Image& image, int left,
                     int top);

  Taps across_, down_;
  std::vector<std::int32_t> lanes_, wide_;
  std::vector<std::uint8_t> row_;
  Image rows_;  // after the pass along rows
};

}  // namespace ablate
