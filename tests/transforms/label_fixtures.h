#pragma once

#include "datasets/label_map.h"
#include "tests/transforms/image_fixtures.h"

namespace ablate::test {

/// The classes that golden values refer to: (x / 17 + y / 13 * 3) mod 5 in whole numbers, none
/// where 11 divides x + 2y.
inline LabelMap label_pattern(int width, int height) {
  LabelMap labels;
  labels.reshape(width, height);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const bool ignored = (x + 2 * y) % 11 == 0;
      labels.row(y)[x] =
          ignored ? LabelMap::kIgnore : static_cast<std::uint8_t>((x / 17 + y / 13 * 3) % 5);
    }
  }
  return labels;
}

/// pattern_image() of two sides.
inline Image pattern_image(int width, int height) {
  Image image;
  image.reshape(width, height);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      std::uint8_t* pixel = image.row(y) + x * Image::kChannels;
      pixel[0] = static_cast<std::uint8_t>(37 * x + 59 * y);
      pixel[1] = static_cast<std::uint8_t>(83 * x + 29 * y + 64);
      pixel[2] = static_cast<std::uint8_t>(17 * x + 101 * y + 128);
    }
  }
  return image;
}

}  // namespace ablate::test
