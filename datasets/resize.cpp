#include "datasets/resize.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "datasets/geometry.h"
#include "datasets/image_kernels.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

double triangle(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

/// The source pixels of every output pixel along one axis, and their fixed-point weights.
struct Taps {
  int stride = 0;  ///< room for weights of one output pixel
  std::vector<int> first, count;
  std::vector<std::int32_t> weights;

  const std::int32_t* weights_of(int o) const {
    return weights.data() + static_cast<std::ptrdiff_t>(o) * stride;
  }
};

std::int32_t to_fixed(double weight) {
  const double scaled = weight * (1 << kTapBits);
  return static_cast<std::int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

Taps make_taps(int in, int out, Filter filter) {
  const double scale = static_cast<double>(in) / out;
  const double stretch = std::max(scale, 1.0);
  const double support = (filter == Filter::Bicubic ? 2.0 : 1.0) * stretch;
  const auto kernel = filter == Filter::Bicubic ? cubic : triangle;
  Taps taps;
  taps.stride = static_cast<int>(std::ceil(support)) * 2 + 1;
  taps.weights.resize(static_cast<std::size_t>(out) * static_cast<std::size_t>(taps.stride));
  std::vector<double> raw(static_cast<std::size_t>(taps.stride));
  for (int o = 0; o < out; ++o) {
    const double center = (o + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(center - support + 0.5));
    const int count = std::min(in, static_cast<int>(center + support + 0.5)) - first;
    double sum = 0;
    for (int k = 0; k < count; ++k) {
      const double weight = kernel((k + first - center + 0.5) * (1.0 / stretch));
      raw[static_cast<std::size_t>(k)] = weight;
      sum += weight;
    }
    taps.first.push_back(first);
    taps.count.push_back(count);
    std::int32_t* weights = &taps.weights[static_cast<std::size_t>(o * taps.stride)];
    for (int k = 0; k < count; ++k) {
      weights[k] = to_fixed(raw[static_cast<std::size_t>(k)] / sum);
    }
  }
  return taps;
}

Image resample_width(const Image& image, const Box& box, int width, Filter filter) {
  const Taps taps = make_taps(box.width, width, filter);
  const int pairs = (*std::max_element(taps.count.begin(), taps.count.end()) + 1) / 2;
  std::vector<std::int32_t> weights(8 * static_cast<std::size_t>(pairs * width));
  for (int o = 0; o < width; ++o) {
    std::int32_t* lanes = weights.data() + 8 * static_cast<std::ptrdiff_t>(pairs) * o;
    for (int k = 0; k < taps.count[static_cast<std::size_t>(o)]; ++k) {
      std::fill_n(lanes + 4 * k, 4, taps.weights_of(o)[k]);
    }
  }
  const RowTaps table{width, pairs, taps.first.data(), weights.data()};
  std::vector<std::uint8_t> row(Image::kChannels * static_cast<std::size_t>(box.width) + 1);
  std::vector<std::int32_t> wide(4 * static_cast<std::size_t>(box.width + 2 * pairs));
  Image out;
  out.reshape(width, box.height);
  for (int y = 0; y < box.height; ++y) {
    const std::uint8_t* source = image.row(box.top + y) + Image::kChannels * box.left;
    std::copy_n(source, row.size() - 1, row.data());
    image_kernels().resample_row(row.data(), box.width, table, wide.data(), out.row(y));
  }
  return out;
}

Image resample_height(const Image& image, int height, Filter filter) {
  const Taps taps = make_taps(image.height, height, filter);
  Image out;
  out.reshape(image.width, height);
  for (int y = 0; y < height; ++y) {
    const auto o = static_cast<std::size_t>(y);
    image_kernels().combine_rows(image.row(taps.first[o]), image.stride(), taps.weights_of(y),
                                 taps.count[o], out.row(y));
  }
  return out;
}

}  // namespace

Image resize(const Image& image, const Box& box, int width, int height, Filter filter) {
  ABLATE_CHECK(width > 0 && height > 0, "resize to ", width, "x", height);
  Image result = box.width == width ? crop(image, box) : resample_width(image, box, width, filter);
  if (result.height != height) result = resample_height(result, height, filter);
  return result;
}

Image resize(const Image& image, int width, int height, Filter filter) {
  return resize(image, Box{0, 0, image.width, image.height}, width, height, filter);
}

}  // namespace ablate
