#include "datasets/decode.h"

#include <algorithm>
#include <array>

#include "runner/core/error.h"

namespace ablate {

namespace {

constexpr std::array<std::uint8_t, 3> kJpegMagic{0xFF, 0xD8, 0xFF};
constexpr std::array<std::uint8_t, 8> kPngMagic{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

template <std::size_t N>
bool starts_with(std::span<const std::uint8_t> bytes, const std::array<std::uint8_t, N>& magic) {
  return bytes.size() >= N && std::equal(magic.begin(), magic.end(), bytes.begin());
}

}  // namespace

bool is_jpeg(std::span<const std::uint8_t> bytes) { return starts_with(bytes, kJpegMagic); }

void decode_image(std::span<const std::uint8_t> bytes, std::string_view name, Image& image) {
  if (is_jpeg(bytes)) return decode_jpeg(bytes, name, image);
  if (starts_with(bytes, kPngMagic)) return decode_png(bytes, name, image);
  throw Error(cat(name, ": ", bytes.empty() ? "empty file" : "unknown image format",
                  "; accepted: JPEG, PNG"));
}

void check_image_size(std::uint64_t width, std::uint64_t height, std::string_view name) {
  constexpr std::uint64_t kMaxPixels = 178'956'970;
  if (width == 0 || height == 0 || width > kMaxPixels / height) {
    throw Error(cat(name, ": image of ", width, "x", height, " pixels; accepted: 1 to ", kMaxPixels,
                    " pixels"));
  }
}

}  // namespace ablate
