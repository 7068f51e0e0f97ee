#include "datasets/resize.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "datasets/geometry.h"
#include "datasets/multiversion.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

constexpr int kFractionBits = 22;
constexpr std::int32_t kHalf = 1 << (kFractionBits - 1);

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
  struct Span {
    int first, count;
  };
  int stride = 0;  // room for weights of one output pixel
  std::vector<Span> spans;
  std::vector<std::int32_t> weights;
};

std::int32_t to_fixed(double weight) {
  const double scaled = weight * (1 << kFractionBits);
  return static_cast<std::int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

Taps make_taps(int in, int out, Filter filter) {
  const double scale = static_cast<double>(in) / out;
  const double stretch = std::max(scale, 1.0);
  const double support = (filter == Filter::Bicubic ? 2.0 : 1.0) * stretch;
  const auto kernel = filter == Filter::Bicubic ? cubic : triangle;
  Taps taps;
  taps.stride = static_cast<int>(std::ceil(support)) * 2 + 1;
  taps.spans.resize(static_cast<std::size_t>(out));
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
    taps.spans[static_cast<std::size_t>(o)] = {first, count};
    std::int32_t* weights = &taps.weights[static_cast<std::size_t>(o * taps.stride)];
    for (int k = 0; k < count; ++k) {
      weights[k] = to_fixed(raw[static_cast<std::size_t>(k)] / sum);
    }
  }
  return taps;
}

std::uint8_t to_pixel(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

/// One row of the horizontal pass. `wide` holds the source row with four 32-bit values a pixel, so
/// that one pixel is one vector.
ABLATE_MULTIVERSION
void resample_row(const std::uint8_t* source, int source_width, const Taps& taps,
                  std::int32_t* __restrict wide, std::uint8_t* __restrict out) {
  for (int x = 0; x < source_width; ++x) {
    for (int c = 0; c < Image::kChannels; ++c) wide[4 * x + c] = source[Image::kChannels * x + c];
  }
  const std::int32_t* weights = taps.weights.data();
  for (const Taps::Span span : taps.spans) {
    std::int32_t sum[4] = {kHalf, kHalf, kHalf, kHalf};
    const std::int32_t* pixel = wide + 4 * span.first;
    for (int k = 0; k < span.count; ++k, pixel += 4) {
      for (int c = 0; c < 4; ++c) sum[c] += weights[k] * pixel[c];
    }
    for (int c = 0; c < Image::kChannels; ++c) *out++ = to_pixel(sum[c]);
    weights += taps.stride;
  }
}

/// One row of the vertical pass: the weighted sum of `count` rows starting at `rows`.
ABLATE_MULTIVERSION
void combine_rows(const std::uint8_t* rows, std::size_t bytes, const std::int32_t* weights,
                  int count, std::int32_t* __restrict sums, std::uint8_t* __restrict out) {
  std::fill_n(sums, bytes, kHalf);
  for (int k = 0; k < count; ++k) {
    const std::uint8_t* row = rows + static_cast<std::size_t>(k) * bytes;
    const std::int32_t weight = weights[k];
    for (std::size_t i = 0; i < bytes; ++i) sums[i] += weight * row[i];
  }
  for (std::size_t i = 0; i < bytes; ++i) out[i] = to_pixel(sums[i]);
}

Image resample_width(const Image& image, const Box& box, int width, Filter filter) {
  const Taps taps = make_taps(box.width, width, filter);
  std::vector<std::int32_t> wide(4 * static_cast<std::size_t>(box.width));
  Image out;
  out.reshape(width, box.height);
  for (int y = 0; y < box.height; ++y) {
    const std::uint8_t* source = image.row(box.top + y) + Image::kChannels * box.left;
    resample_row(source, box.width, taps, wide.data(), out.row(y));
  }
  return out;
}

Image resample_height(const Image& image, int height, Filter filter) {
  const Taps taps = make_taps(image.height, height, filter);
  std::vector<std::int32_t> sums(image.stride());
  Image out;
  out.reshape(image.width, height);
  for (int y = 0; y < height; ++y) {
    const Taps::Span span = taps.spans[static_cast<std::size_t>(y)];
    combine_rows(image.row(span.first), image.stride(),
                 &taps.weights[static_cast<std::size_t>(y * taps.stride)], span.count, sums.data(),
                 out.row(y));
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
