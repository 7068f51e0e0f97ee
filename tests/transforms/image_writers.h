#pragma once

#include <cstdint>
#include <vector>

namespace ablate::test {

using Bytes = std::vector<std::uint8_t>;

enum class JpegColor { Grey, Rgb, Cmyk, Ycck };

struct JpegSettings {
  int quality = 100;
  int across = 1, down = 1;  ///< pixels that share a value of chroma, of Rgb
  bool progressive = false;
  int restart_rows = 0;  ///< rows of blocks between restart markers; 0: none
};

/// A JPEG file from 1 (Grey), 3 (Rgb, stored as YCbCr) or 4 (else) bytes a pixel.
Bytes write_jpeg(const Bytes& pixels, int width, int height, JpegColor color,
                 const JpegSettings& settings = {});

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
