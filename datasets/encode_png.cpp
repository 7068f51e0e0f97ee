#include "datasets/encode_png.h"

#include <algorithm>

#include <png.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

/// `colors` is null without a palette.
std::string encode(png_image& header, const std::uint8_t* pixels, const std::uint8_t* colors) {
  const auto run = [&](void* target, png_alloc_size_t& size) {
    if (png_image_write_to_memory(&header, target, &size, 0, pixels, 0, colors) != 0) return;
    throw Error(
        cat("cannot encode a PNG of ", header.width, " x ", header.height, ": ", header.message));
  };
  png_alloc_size_t size = 0;
  run(nullptr, size);
  std::string bytes(size, '\0');
  run(bytes.data(), size);
  bytes.resize(size);
  return bytes;
}

png_image header_of(int width, int height, png_uint_32 format) {
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  header.width = static_cast<png_uint_32>(width);
  header.height = static_cast<png_uint_32>(height);
  header.format = format;
  return header;
}

std::uint8_t stored_value(std::uint8_t label) {
  return label == LabelMap::kIgnore ? std::uint8_t{0} : static_cast<std::uint8_t>(label + 1);
}

}  // namespace

ClassColor class_color(std::uint8_t label) {
  ClassColor color{};
  int bits = stored_value(label);
  for (int place = 7; bits > 0; --place, bits >>= 3) {
    for (int c = 0; c < Image::kChannels; ++c) {
      color[static_cast<std::size_t>(c)] |= static_cast<std::uint8_t>((bits >> c & 1) << place);
    }
  }
  return color;
}

std::string encode_png(const Image& image) {
  png_image header = header_of(image.width, image.height, PNG_FORMAT_RGB);
  return encode(header, image.pixels.data(), nullptr);
}

std::string encode_png(const LabelMap& labels) {
  std::array<ClassColor, 256> palette{};
  for (int label = 0; label < LabelMap::kIgnore; ++label) {
    palette[static_cast<std::size_t>(label) + 1] = class_color(static_cast<std::uint8_t>(label));
  }
  std::vector<std::uint8_t> values(labels.classes.size());
  std::ranges::transform(labels.classes, values.begin(), stored_value);
  png_image header = header_of(labels.width, labels.height, PNG_FORMAT_RGB_COLORMAP);
  header.colormap_entries = static_cast<png_uint_32>(palette.size());
  return encode(header, values.data(), palette.front().data());
}

}  // namespace ablate
