#include "datasets/color_distortion.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "datasets/geometry.h"

namespace ablate {
namespace {

constexpr int kHues = 180;
constexpr int kShift = 12;  // of the fixed-point quotients

/// round(numerator * 2^kShift / i) for i = 0 .. 255, 0 at 0.
std::array<int, 256> quotients(double numerator) {
  std::array<int, 256> table{};
  for (int i = 1; i < 256; ++i) {
    table[static_cast<std::size_t>(i)] = round_half_even(numerator * (1 << kShift) / i);
  }
  return table;
}

int times_quotient(int value, int quotient) {
  return (value * quotient + (1 << (kShift - 1))) >> kShift;
}

/// The value that scale_values gives for each of 256.
std::array<std::uint8_t, 256> scaled(float factor, float offset) {
  std::array<std::uint8_t, 256> table;
  for (std::size_t v = 0; v < table.size(); ++v) {
    const float value = static_cast<float>(v) * factor + offset;
    table[v] = static_cast<std::uint8_t>(std::clamp(value, 0.0F, 255.0F));
  }
  return table;
}

void pixel_to_hsv(std::uint8_t* pixel) {
  static const std::array<int, 256> by_value = quotients(255), by_spread = quotients(kHues / 6.0);
  const int r = pixel[0], g = pixel[1], b = pixel[2];
  const int value = std::max({r, g, b}), spread = value - std::min({r, g, b});
  int hue = r - g + 4 * spread;  // in sixths of the circle, times spread
  if (value == r) {
    hue = g - b;
  } else if (value == g) {
    hue = b - r + 2 * spread;
  }
  hue = times_quotient(hue, by_spread[static_cast<std::size_t>(spread)]);
  pixel[0] = static_cast<std::uint8_t>(hue < 0 ? hue + kHues : hue);
  pixel[1] =
      static_cast<std::uint8_t>(times_quotient(spread, by_value[static_cast<std::size_t>(value)]));
  pixel[2] = static_cast<std::uint8_t>(value);
}

/// Cut, not rounded, as the vector code of OpenCV does.
std::uint8_t to_byte(float share) { return static_cast<std::uint8_t>(share * 255.0F); }

void pixel_to_rgb(std::uint8_t* pixel) {
  const float hue = std::fmod(static_cast<float>(pixel[0]) * (6.0F / kHues), 6.0F);
  const float saturation = static_cast<float>(pixel[1]) * (1.0F / 255.0F);
  const float value = static_cast<float>(pixel[2]) * (1.0F / 255.0F);
  const int sector = static_cast<int>(hue);
  const float part = hue - static_cast<float>(sector);
  const std::uint8_t high = to_byte(value), low = to_byte(value * (1.0F - saturation));
  const std::uint8_t falling = to_byte(value * (1.0F - saturation * part));
  const std::uint8_t rising = to_byte(value * (1.0F - saturation * (1.0F - part)));
  const std::array<std::array<std::uint8_t, 3>, 6> sectors{{{high, rising, low},
                                                            {falling, high, low},
                                                            {low, high, rising},
                                                            {low, falling, high},
                                                            {rising, low, high},
                                                            {high, low, falling}}};
  std::ranges::copy(sectors[static_cast<std::size_t>(sector)], pixel);
}

template <typename PixelOp>
void each_pixel(Image& image, PixelOp op) {
  for (std::size_t i = 0; i < image.pixels.size(); i += Image::kChannels) op(&image.pixels[i]);
}

}  // namespace

void scale_values(Image& image, float factor, float offset) {
  const auto table = scaled(factor, offset);
  for (std::uint8_t& value : image.pixels) value = table[value];
}

void rgb_to_hsv(Image& image) { each_pixel(image, pixel_to_hsv); }

void hsv_to_rgb(Image& image) { each_pixel(image, pixel_to_rgb); }

void scale_saturation(Image& image, float factor) {
  const auto table = scaled(factor, 0);
  each_pixel(image, [&](std::uint8_t* pixel) {
    pixel_to_hsv(pixel);
    pixel[1] = table[pixel[1]];
    pixel_to_rgb(pixel);
  });
}

void turn_hue(Image& image, int steps) {
  each_pixel(image, [&](std::uint8_t* pixel) {
    pixel_to_hsv(pixel);
    pixel[0] = static_cast<std::uint8_t>((pixel[0] + steps + kHues) % kHues);
    pixel_to_rgb(pixel);
  });
}

void distort_colors(Image& image, RandomStream& random) {
  const auto coin = [&] { return random.below(2) == 1; };
  const auto factor = [&] { return static_cast<float>(random.uniform(0.5, 1.5)); };
  if (coin()) scale_values(image, 1, static_cast<float>(random.uniform(-32, 32)));
  const bool contrast_first = coin();
  const auto contrast = [&] {
    if (coin()) scale_values(image, factor(), 0);
  };
  if (contrast_first) contrast();
  if (coin()) scale_saturation(image, factor());
  if (coin()) turn_hue(image, static_cast<int>(random.below(36)) - 18);
  if (!contrast_first) contrast();
}

}  // namespace ablate
