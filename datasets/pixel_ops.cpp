#include "datasets/pixel_ops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "datasets/image_kernels.h"

namespace ablate {

namespace {

constexpr int kChannels = Image::kChannels;
constexpr int kLevels = 256;
using Lut = std::array<std::uint8_t, kLevels>;
using Histogram = std::array<int, kLevels>;

std::uint8_t clip(int value) { return static_cast<std::uint8_t>(std::clamp(value, 0, 255)); }

/// A table of rule(v) for all v.
template <typename Rule>
Lut make_lut(Rule rule) {
  Lut lut;
  for (int v = 0; v < kLevels; ++v) lut[static_cast<std::size_t>(v)] = clip(rule(v));
  return lut;
}

void apply_lut(Image& image, const Lut& lut) {
  for (std::uint8_t& v : image.pixels) v = lut[v];
}

void apply_luts(Image& image, const std::array<Lut, kChannels>& luts) {
  const std::size_t size = image.pixels.size();
  for (std::size_t i = 0; i < size; i += kChannels) {
    for (std::size_t c = 0; c < kChannels; ++c) image.pixels[i + c] = luts[c][image.pixels[i + c]];
  }
}

std::array<Histogram, kChannels> histograms(const Image& image) {
  std::array<Histogram, kChannels> counts{};
  for (std::size_t i = 0; i < image.pixels.size(); i += kChannels) {
    for (std::size_t c = 0; c < kChannels; ++c) ++counts[c][image.pixels[i + c]];
  }
  return counts;
}

Lut autocontrast_lut(const Histogram& counts) {
  const auto filled = [](int count) { return count > 0; };
  const auto first = std::find_if(counts.begin(), counts.end(), filled);
  const auto last = std::find_if(counts.rbegin(), counts.rend(), filled);
  const int low = static_cast<int>(first - counts.begin());
  const int high = kLevels - 1 - static_cast<int>(last - counts.rbegin());
  if (high <= low) return make_lut([](int v) { return v; });
  const double scale = 255.0 / (high - low);
  const double offset = -low * scale;
  return make_lut([=](int v) { return static_cast<int>(v * scale + offset); });
}

Lut equalize_lut(const Histogram& counts) {
  int pixels = 0, last = 0, bins = 0;
  for (const int count : counts) {
    if (count == 0) continue;
    pixels += count;
    last = count;
    ++bins;
  }
  const int step = (pixels - last) / 255;
  if (bins <= 1 || step == 0) return make_lut([](int v) { return v; });
  int sum = step / 2;
  return make_lut([&](int v) {
    const int level = sum / step;
    sum += counts[static_cast<std::size_t>(v)];
    return level;
  });
}

/// Pillow's Image.blend of one value (factor 0) and all others (factor 1).
Lut blend_lut(int degenerate, double factor) {
  Lut from, to = make_lut([](int v) { return v; });
  from.fill(static_cast<std::uint8_t>(degenerate));
  image_kernels().blend(from.data(), to.data(), to.size(), static_cast<float>(factor), to.data());
  return to;
}

/// ITU-R 601 luma with 16 fraction bits, as Pillow's convert("L").
int grey(const std::uint8_t* rgb) {
  return (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16;
}

}  // namespace

void autocontrast(Image& image) {
  const auto counts = histograms(image);
  apply_luts(image, std::array{autocontrast_lut(counts[0]), autocontrast_lut(counts[1]),
                               autocontrast_lut(counts[2])});
}

void equalize(Image& image) {
  const auto counts = histograms(image);
  apply_luts(image,
             std::array{equalize_lut(counts[0]), equalize_lut(counts[1]), equalize_lut(counts[2])});
}

void invert(Image& image) {
  for (std::uint8_t& v : image.pixels) v = static_cast<std::uint8_t>(255 - v);
}

void posterize(Image& image, int bits) {
  const auto mask = static_cast<std::uint8_t>(0xFF00 >> bits);
  for (std::uint8_t& v : image.pixels) v &= mask;
}

void solarize(Image& image, int threshold) {
  apply_lut(image, make_lut([=](int v) { return v < threshold ? v : 255 - v; }));
}

void solarize_add(Image& image, int add) {
  apply_lut(image, make_lut([=](int v) { return v < 128 ? v + add : v; }));
}

void adjust_color(Image& image, double factor) {
  std::vector<std::uint8_t> greys(image.stride());
  for (int y = 0; y < image.height; ++y) {
    std::uint8_t* row = image.row(y);
    for (std::size_t i = 0; i < greys.size(); i += kChannels) {
      greys[i] = greys[i + 1] = greys[i + 2] = static_cast<std::uint8_t>(grey(row + i));
    }
    image_kernels().blend(greys.data(), row, greys.size(), static_cast<float>(factor), row);
  }
}

void adjust_contrast(Image& image, double factor) {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < image.pixels.size(); i += kChannels) sum += grey(&image.pixels[i]);
  const double count = static_cast<double>(image.width) * image.height;
  const int mean = static_cast<int>(static_cast<double>(sum) / count + 0.5);
  apply_lut(image, blend_lut(mean, factor));
}

void adjust_brightness(Image& image, double factor) { apply_lut(image, blend_lut(0, factor)); }

void adjust_sharpness(Image& image, double factor, Image& spare) {
  if (image.width < 3 || image.height < 3) return;  // all border, which smoothing copies
  spare = image;
  const std::size_t inner = image.stride() - 2 * kChannels;
  std::vector<std::uint8_t> smooth(inner);
  for (int y = 1; y + 1 < image.height; ++y) {
    const std::uint8_t *above = spare.row(y - 1), *at = spare.row(y), *below = spare.row(y + 1);
    image_kernels().smooth(above, at, below, inner, smooth.data());
    image_kernels().blend(smooth.data(), at + kChannels, inner, static_cast<float>(factor),
                          image.row(y) + kChannels);
  }
}

}  // namespace ablate
