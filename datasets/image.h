#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ablate {

/// An 8-bit RGB image, rows from top to bottom, channels interleaved (HWC). Value type.
struct Image {
  static constexpr int kChannels = 3;

  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> pixels;  ///< height * width * 3

  /// Bytes of one row.
  std::size_t stride() const { return static_cast<std::size_t>(width) * kChannels; }
  const std::uint8_t* row(int y) const {
    return pixels.data() + stride() * static_cast<std::size_t>(y);
  }
  std::uint8_t* row(int y) { return pixels.data() + stride() * static_cast<std::size_t>(y); }

  /// Takes a new size, reusing the buffer; pixel values are unspecified afterwards.
  void reshape(int new_width, int new_height) {
    width = new_width;
    height = new_height;
    pixels.resize(stride() * static_cast<std::size_t>(height));
  }

  bool operator==(const Image&) const = default;
};

/// A rectangle of pixels inside an image.
struct Box {
  int left = 0;
  int top = 0;
  int width = 0;
  int height = 0;

  bool operator==(const Box&) const = default;
};

/// Mean and standard deviation of the channels, pixels scaled to [0, 1].
struct Normalization {
  std::array<float, Image::kChannels> mean{0, 0, 0};
  std::array<float, Image::kChannels> std{1, 1, 1};
};

}  // namespace ablate
