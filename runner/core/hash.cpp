#include "runner/core/hash.h"

#include <array>
#include <cstdio>
#include <fstream>
#include <memory>

#include <openssl/evp.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "runner/core/error.h"

namespace ablate {

namespace {

std::string hex(std::span<const unsigned char> bytes) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const unsigned char byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    ABLATE_CHECK(context_ != nullptr);
    ABLATE_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }

  void update(const char* data, std::size_t size) {
    ABLATE_CHECK(EVP_DigestUpdate(context_.get(), data, size) == 1);
  }

  std::string finish() {
    std::array<unsigned char, 32> digest{};
    ABLATE_CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) == 1);
    return hex(digest);
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::uint64_t hash64(std::string_view bytes, std::uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

std::string hash128_hex(std::string_view bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  return hex(canonical.digest);
}

std::uint32_t checksum32(std::string_view bytes) {
  return static_cast<std::uint32_t>(XXH3_64bits(bytes.data(), bytes.size()));
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 digest;
  digest.update(bytes.data(), bytes.size());
  return digest.finish();
}

std::string sha256_hex(const std::filesystem::path& file) {
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) {
    throw Error(cat(file.string(), ": cannot be read: is a directory"));
  }
  std::ifstream in(file, std::ios::binary);
  if (!in) throw Error(cat(file.string(), ": cannot be read"));
  Sha256 digest;
  std::string buffer(std::size_t{1} << 20, '\0');
  while (in) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    digest.update(buffer.data(), static_cast<std::size_t>(in.gcount()));
  }
  if (in.bad()) throw Error(cat(file.string(), ": cannot be read to its end"));
  return digest.finish();
}

}  // namespace ablate
