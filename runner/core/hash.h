#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace ablate {

/// 64-bit XXH3 of the bytes. Stable across machines and releases: it is part of identities.
std::uint64_t hash64(std::string_view bytes, std::uint64_t seed = 0);

/// 128-bit XXH3 as 32 lower-case hexadecimal digits. Stable across machines and releases.
std::string hash128_hex(std::string_view bytes);

/// 32-bit checksum of a frame or record (low half of XXH3).
std::uint32_t checksum32(std::string_view bytes);

/// SHA-256 of a text or a file's content as 64 lower-case hexadecimal digits.
/// Throws Error when the file cannot be read. A std::string, which may be either, does not compile.
std::string sha256_hex(std::string_view bytes);
std::string sha256_hex(const std::filesystem::path& file);

}  // namespace ablate
