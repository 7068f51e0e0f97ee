#include "tests/transforms/image_fixtures.h"

#include <array>

namespace ablate::test {

Image pattern_image(int n) {
  Image image;
  image.reshape(n, n);
  for (int y = 0; y < n; ++y) {
    std::uint8_t* out = image.row(y);
    for (int x = 0; x < n; ++x) {
      *out++ = static_cast<std::uint8_t>(37 * x + 59 * y);
      *out++ = static_cast<std::uint8_t>(83 * x + 29 * y + 64);
      *out++ = static_cast<std::uint8_t>(17 * x + 101 * y + 128);
    }
  }
  return image;
}

Image noise_image(int width, int height, std::uint64_t seed) {
  RandomStream random(seed, Purpose::Test);
  Image image;
  image.reshape(width, height);
  for (std::uint8_t& v : image.pixels) v = static_cast<std::uint8_t>(random.below(256));
  return image;
}

namespace {

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    table[i] = i;
    for (int bit = 0; bit < 8; ++bit) {
      table[i] = (table[i] >> 1) ^ ((table[i] & 1) != 0 ? 0xEDB88320U : 0U);
    }
  }
  return table;
}

}  // namespace

std::uint32_t crc32(std::span<const std::uint8_t> bytes, std::uint32_t start) {
  static constexpr auto kTable = crc_table();
  std::uint32_t crc = ~start;
  for (const std::uint8_t byte : bytes) crc = (crc >> 8) ^ kTable[(crc ^ byte) & 0xFF];
  return ~crc;
}

std::string row_hex(const Image& image, int y) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < image.stride(); ++i) {
    text += kDigits[image.row(y)[i] >> 4];
    text += kDigits[image.row(y)[i] & 15];
  }
  return text;
}

std::vector<std::uint8_t> from_hex(std::string_view text) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::uint8_t>(digit(text[i]) * 16 + digit(text[i + 1])));
  }
  return bytes;
}

}  // namespace ablate::test
