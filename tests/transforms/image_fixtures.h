#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/image.h"
#include "runner/core/random.h"

namespace ablate::test {

/// The n x n image R = 37x + 59y, G = 83x + 29y + 64, B = 17x + 101y + 128, all modulo 256, that
/// golden values refer to.
Image pattern_image(int n);

/// Independent uniform bytes.
Image noise_image(int width, int height, std::uint64_t seed);

/// The common CRC-32 (zlib's).
std::uint32_t crc32(std::span<const std::uint8_t> bytes, std::uint32_t start = 0);
inline std::uint32_t crc32(const Image& image) { return crc32(image.pixels); }

/// Bytes of a row as lower-case hexadecimal text, and back.
std::string row_hex(const Image& image, int y);
std::vector<std::uint8_t> from_hex(std::string_view text);

}  // namespace ablate::test
