#pragma once

#include <cstdint>
#include <vector>

namespace ablate::test {

using Bytes = std::vector<std::uint8_t>;

enum class JpegColor { Grey, Cmyk, Ycck };

/// A JPEG file of best quality from 1 (Grey) or 4 (else) bytes a pixel.
Bytes write_jpeg(const Bytes& pixels, int width, int height, JpegColor color);

enum class PngColor { Grey, GreyAlpha, Palette, Rgb, Rgba };

struct PngImage {
  Bytes rows;  ///< packed as in the file, big-endian
  int width, height, depth;
  PngColor color;
  Bytes palette{};        ///< RGB triples
  Bytes palette_alpha{};  ///< one byte an entry; empty for none
  bool interlaced = false;
};

Bytes write_png(const PngImage& image);

}  // namespace ablate::test
