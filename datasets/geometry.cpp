#include "datasets/geometry.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runner/core/error.h"

namespace ablate {

int round_half_even(double value) { return static_cast<int>(std::nearbyint(value)); }

void crop(const Image& image, const Box& box, Image& out) {
  ABLATE_CHECK(box.left >= 0 && box.top >= 0 && box.width > 0 && box.height > 0 &&
                   box.left + box.width <= image.width && box.top + box.height <= image.height,
               "crop outside the image");
  out.reshape(box.width, box.height);
  for (int y = 0; y < box.height; ++y) {
    const std::uint8_t* source = image.row(box.top + y) + Image::kChannels * box.left;
    std::copy_n(source, out.stride(), out.row(y));
  }
}

Image crop(const Image& image, const Box& box) {
  Image out;
  crop(image, box, out);
  return out;
}

void padded_crop(const Image& image, int left, int top, int size, int pad, Image& out) {
  out.reshape(size, size);
  std::fill(out.pixels.begin(), out.pixels.end(), std::uint8_t{0});
  const int x0 = std::max(0, pad - left), x1 = std::min(size, pad - left + image.width);
  const int y0 = std::max(0, pad - top), y1 = std::min(size, pad - top + image.height);
  if (x1 <= x0) return;
  for (int y = y0; y < y1; ++y) {
    const std::uint8_t* source = image.row(y + top - pad) + Image::kChannels * (x0 + left - pad);
    std::copy_n(source, Image::kChannels * (x1 - x0), out.row(y) + Image::kChannels * x0);
  }
}

Image padded_crop(const Image& image, int left, int top, int size, int pad) {
  Image out;
  padded_crop(image, left, top, size, pad, out);
  return out;
}

Box random_crop_box(int width, int height, int size, int pad, RandomStream& random) {
  const int free_x = width + 2 * pad - size, free_y = height + 2 * pad - size;
  if (free_x < 0 || free_y < 0) {
    throw Error(cat("cannot cut ", size, "x", size, " out of an image of ", width, "x", height,
                    " padded by ", pad, "; accepted: a smaller image_size, a larger ",
                    "pad, or crop = \"resized\""));
  }
  const int top = static_cast<int>(random.below(static_cast<std::uint32_t>(free_y) + 1));
  const int left = static_cast<int>(random.below(static_cast<std::uint32_t>(free_x) + 1));
  return {left, top, size, size};
}

Image random_crop(const Image& image, int size, int pad, RandomStream& random) {
  const Box window = random_crop_box(image.width, image.height, size, pad, random);
  return padded_crop(image, window.left, window.top, size, pad);
}

Box center_crop_box(int width, int height, int size) {
  ABLATE_CHECK(width >= size && height >= size, "centre crop of ", size, " from ", width, "x",
               height);
  return {round_half_even((width - size) / 2.0), round_half_even((height - size) / 2.0), size,
          size};
}

Size resized_size(int width, int height, int short_side) {
  const auto longer = [short_side](std::int64_t long_side, int short_now) {
    return static_cast<int>(short_side * long_side / short_now);
  };
  if (width <= height) return {short_side, longer(height, width)};
  return {longer(width, height), short_side};
}

namespace {

Box largest_central_box(int width, int height, const ResizedCrop& ranges) {
  const double ratio = static_cast<double>(width) / height;
  Box box{0, 0, width, height};
  if (ratio < ranges.ratio_low) {
    box.height = std::min(height, round_half_even(width / ranges.ratio_low));
  } else if (ratio > ranges.ratio_high) {
    box.width = std::min(width, round_half_even(height * ranges.ratio_high));
  }
  box.left = (width - box.width) / 2;
  box.top = (height - box.height) / 2;
  return box;
}

}  // namespace

Box random_resized_crop_box(int width, int height, const ResizedCrop& ranges,
                            RandomStream& random) {
  constexpr int kTries = 10;
  const double area = static_cast<double>(width) * height;
  const double log_low = std::log(ranges.ratio_low), log_high = std::log(ranges.ratio_high);
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const double target = area * random.uniform(ranges.scale_low, ranges.scale_high);
    const double aspect = std::exp(random.uniform(log_low, log_high));
    const int w = round_half_even(std::sqrt(target * aspect));
    const int h = round_half_even(std::sqrt(target / aspect));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    const int top = static_cast<int>(random.below(static_cast<std::uint32_t>(height - h) + 1));
    const int left = static_cast<int>(random.below(static_cast<std::uint32_t>(width - w) + 1));
    return {left, top, w, h};
  }
  return largest_central_box(width, height, ranges);
}

void hflip(Image& image) {
  for (int y = 0; y < image.height; ++y) {
    std::uint8_t* left = image.row(y);
    std::uint8_t* right = left + image.stride();
    while (left + Image::kChannels < right) {
      right -= Image::kChannels;
      for (int c = 0; c < Image::kChannels; ++c) std::swap(left[c], right[c]);
      left += Image::kChannels;
    }
  }
}

}  // namespace ablate
