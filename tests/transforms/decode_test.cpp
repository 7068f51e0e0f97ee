#include "datasets/decode.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/support/photos.h"
#include "tests/transforms/image_fixtures.h"
#include "tests/transforms/image_writers.h"
#include "tests/transforms/jpeg_samples.h"

namespace ablate {
namespace {

using test::Bytes;
using test::crc32;
using test::from_hex;

Image decode(const Bytes& bytes) {
  Image image;
  decode_image(bytes, "sample", image);
  return image;
}

/// The message of the Error, "" when the bytes were accepted.
std::string refusal(const Bytes& bytes) {
  try {
    decode(bytes);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

const Bytes kGreys{0, 1, 84, 127, 128, 200, 254, 255};

TEST(DecodeJpeg, EqualsPillow) {
  EXPECT_EQ(crc32(decode(from_hex(test::kJpeg420))), test::kJpeg420Crc);
  EXPECT_EQ(crc32(decode(from_hex(test::kJpegProgressive422))), test::kJpegProgressive422Crc);
  EXPECT_EQ(crc32(decode(from_hex(test::kJpegGray))), test::kJpegGrayCrc);
  EXPECT_EQ(crc32(decode(from_hex(test::kJpegCmyk))), test::kJpegCmykCrc);
}

TEST(DecodeJpeg, GreyHasEqualChannels) {
  const Bytes grey(static_cast<std::size_t>(20 * 12), 173);
  const Image image = decode(test::write_jpeg(grey, 20, 12, test::JpegColor::Grey));
  ASSERT_EQ(image.width, 20);
  ASSERT_EQ(image.height, 12);
  for (const std::uint8_t v : image.pixels) ASSERT_EQ(v, 173);
}

// Adobe stores ink inverted: 255 is none. A flat image survives the compression exactly.
TEST(DecodeJpeg, InvertedCmykAndYcckBecomeRgb) {
  Bytes inks;
  for (int i = 0; i < 64; ++i) inks.insert(inks.end(), {255, 204, 102, 128});
  for (const auto color : {test::JpegColor::Cmyk, test::JpegColor::Ycck}) {
    const Image image = decode(test::write_jpeg(inks, 8, 8, color));
    // white * (1 - ink): 128 * {1, 0.8, 0.4}
    EXPECT_NEAR(image.pixels[0], 128, 1);
    EXPECT_NEAR(image.pixels[1], 102, 1);
    EXPECT_NEAR(image.pixels[2], 51, 1);
  }
}

TEST(DecodeJpeg, EveryTruncationIsAnErrorThatNamesTheFile) {
  for (const auto text : {test::kJpeg420, test::kJpegProgressive422, test::kJpegCmyk}) {
    const Bytes whole = from_hex(text);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const std::string message = refusal({whole.begin(), whole.begin() + static_cast<long>(size)});
      ASSERT_TRUE(message.starts_with("sample: ")) << size << " bytes: " << message;
    }
    EXPECT_EQ(refusal(whole), "");
  }
}

TEST(DecodeJpeg, DamageNeverCrashes) {
  const Bytes whole = from_hex(test::kJpegProgressive422);
  RandomStream random(2, Purpose::Test);
  int refused = 0;
  constexpr int kRounds = 2000;
  for (int i = 0; i < kRounds; ++i) {
    Bytes damaged = whole;
    for (int k = 0; k < 4; ++k) {
      damaged[random.below(static_cast<std::uint32_t>(whole.size()))] =
          static_cast<std::uint8_t>(random.below(256));
    }
    refused += !refusal(damaged).empty();
  }
  EXPECT_GT(refused, kRounds / 4);
}

TEST(DecodeJpeg, HarmlessExtraBytesAreAccepted) {
  Bytes bytes = from_hex(test::kJpeg420);
  const Image image = decode(bytes);
  bytes.insert(bytes.end(), {1, 2, 3});
  EXPECT_EQ(decode(bytes), image);
}

TEST(DecodePng, GreyOfEveryDepth) {
  for (const int depth : {1, 2, 4, 8}) {
    const int top = (1 << depth) - 1;
    Bytes row;  // packed: every value of the depth, the first eight for 8 bits
    const int count = depth == 8 ? 8 : top + 1;
    Bytes expected;
    int filled = 0, byte = 0;
    for (int i = 0; i < count; ++i) {
      const int value = depth == 8 ? kGreys[static_cast<std::size_t>(i)] : i;
      expected.insert(expected.end(), 3, static_cast<std::uint8_t>(value * 255 / top));
      byte = (byte << depth) | value;
      filled += depth;
      if (filled == 8 || i + 1 == count) {
        row.push_back(static_cast<std::uint8_t>(byte << (8 - filled)));
        filled = byte = 0;
      }
    }
    const Image image = decode(test::write_png({row, count, 1, depth, test::PngColor::Grey}));
    EXPECT_EQ(image.pixels, expected) << depth << " bits";
  }
}

TEST(DecodePng, SixteenBitsKeepTheHighByte) {
  const Bytes row{0x00, 0xFF, 0x12, 0x34, 0x80, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x7F, 0x80};
  const Bytes high{0x00, 0x12, 0x80, 0xFF, 0x01, 0x7F};
  EXPECT_EQ(decode(test::write_png({row, 2, 1, 16, test::PngColor::Rgb})).pixels, high);
  Bytes grey;
  for (const std::uint8_t v : high) grey.insert(grey.end(), 3, v);
  EXPECT_EQ(decode(test::write_png({row, 6, 1, 16, test::PngColor::Grey})).pixels, grey);
}

TEST(DecodePng, AlphaIsDropped) {
  const Bytes rgba{10, 20, 30, 0, 40, 50, 60, 128};
  EXPECT_EQ(decode(test::write_png({rgba, 2, 1, 8, test::PngColor::Rgba})).pixels,
            (Bytes{10, 20, 30, 40, 50, 60}));
  const Bytes grey_alpha{77, 0, 99, 255};
  EXPECT_EQ(decode(test::write_png({grey_alpha, 2, 1, 8, test::PngColor::GreyAlpha})).pixels,
            (Bytes{77, 77, 77, 99, 99, 99}));
}

TEST(DecodePng, PaletteIsLookedUp) {
  test::PngImage png{{0, 2, 1, 2}, 2, 2, 8, test::PngColor::Palette};
  png.palette = {1, 2, 3, 100, 110, 120, 255, 0, 7};
  png.palette_alpha = {0, 255, 128};
  const Bytes expected{1, 2, 3, 255, 0, 7, 100, 110, 120, 255, 0, 7};
  EXPECT_EQ(decode(test::write_png(png)).pixels, expected);
  png.interlaced = true;
  EXPECT_EQ(decode(test::write_png(png)).pixels, expected);
}

TEST(DecodePng, EveryTruncationAndEveryFlippedByteOfTheDataIsAnError) {
  const Image noise = test::noise_image(9, 7, 1);
  test::PngImage png{noise.pixels, 9, 7, 8, test::PngColor::Rgb};
  png.interlaced = true;
  const Bytes whole = test::write_png(png);
  EXPECT_EQ(decode(whole), noise);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string message = refusal({whole.begin(), whole.begin() + static_cast<long>(size)});
    ASSERT_TRUE(message.starts_with("sample: ")) << size << " bytes: " << message;
  }
  constexpr std::string_view kData = "IDAT";
  const auto data = std::search(whole.begin(), whole.end(), kData.begin(), kData.end());
  for (auto at = data - whole.begin(); at < std::ssize(whole) - 12; ++at) {
    Bytes damaged = whole;
    damaged[static_cast<std::size_t>(at)] ^= 0x10;
    ASSERT_FALSE(refusal(damaged).empty()) << "byte " << at;
  }
}

TEST(Decode, OtherFormatsAreNamedAsSuch) {
  EXPECT_EQ(refusal({}), "sample: empty file; accepted: JPEG, PNG");
  const std::string gif = refusal({'G', 'I', 'F', '8', '9', 'a', 0, 0, 0, 0});
  EXPECT_EQ(gif, "sample: unknown image format; accepted: JPEG, PNG");
}

TEST(Decode, GiganticImagesAreRefusedBeforeTheyAreAllocated) {
  Bytes png = test::write_png({Bytes(3), 1, 1, 8, test::PngColor::Rgb});
  // Width and height stand behind "IHDR", a checksum over all of it behind 13 bytes of data.
  const Bytes huge{0x00, 0x0F, 0x00, 0x00, 0x00, 0x0F, 0x00, 0x00};
  std::copy(huge.begin(), huge.end(), png.begin() + 16);
  const std::uint32_t crc = crc32(std::span(png).subspan(12, 17));
  for (int i = 0; i < 4; ++i) {
    png[static_cast<std::size_t>(29 + i)] = static_cast<std::uint8_t>(crc >> (24 - 8 * i));
  }
  const std::string message = refusal(png);
  EXPECT_NE(message.find("983040x983040"), std::string::npos) << message;
}

TEST(Decode, ReusesTheBuffer) {
  Image image = test::noise_image(64, 64, 1);
  const std::uint8_t* before = image.pixels.data();
  decode_image(from_hex(test::kJpeg420), "sample", image);
  EXPECT_EQ(image.pixels.data(), before);
  EXPECT_EQ(crc32(image), test::kJpeg420Crc);
}

TEST(Decode, TwoHundredPhotosEqualPillow) {
  const auto photos = test::sample_photos();
  if (photos.empty()) GTEST_SKIP() << test::kNoPhotos;
  ASSERT_EQ(photos.size(), 200U);
  std::uint32_t crc = 0;
  Image image;
  for (const Bytes& bytes : photos) {
    decode_image(bytes, "sample", image);
    crc = crc32(image.pixels, crc);
  }
  EXPECT_EQ(crc, 0x7c5bc9f2U);  // of Pillow 9.4 and 13.0
}

}  // namespace
}  // namespace ablate
