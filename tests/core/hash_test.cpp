#include "runner/core/hash.h"

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

// Published values of XXH3: identities on disk depend on them.
TEST(Hash, Xxh3NeverChanges) {
  EXPECT_EQ(hash64(""), 0x2d06800538d394c2U);
  EXPECT_EQ(hash64("abc"), 0x78af5f94892f3950U);
  EXPECT_EQ(hash128_hex(""), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(hash128_hex("abc"), "06b05ab6733a618578af5f94892f3950");
  EXPECT_EQ(checksum32("abc"), 0x892f3950U);
}

TEST(Hash, SeedsGiveDifferentHashes) {
  EXPECT_EQ(hash64("abc", 0), hash64("abc"));
  EXPECT_NE(hash64("abc", 1), hash64("abc"));
}

// FIPS 180-4 examples.
TEST(Sha256, FipsVectors) {
  EXPECT_EQ(sha256_hex(std::string_view("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex(std::string_view("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(
      sha256_hex(std::string_view("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  const std::string million(1'000'000, 'a');
  EXPECT_EQ(sha256_hex(std::string_view(million)),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, FileEqualsItsContent) {
  const test::TempFolder folder;
  const std::string content(3'000'000, 'x');  // more than one buffer
  write_file_atomic(folder / "weights", content);
  EXPECT_EQ(sha256_hex(folder / "weights"), sha256_hex(std::string_view(content)));
  EXPECT_THROW(sha256_hex(folder / "missing"), Error);
  EXPECT_THROW(sha256_hex(folder.path()), Error);
}

}  // namespace
}  // namespace ablate
