#include "datasets/part_decoder.h"

#include <algorithm>
#include <filesystem>

#include <gtest/gtest.h>

#include "datasets/decode.h"
#include "runner/core/error.h"
#include "tests/support/photos.h"
#include "tests/transforms/image_fixtures.h"
#include "tests/transforms/image_writers.h"

namespace ablate {
namespace {

using test::Bytes;
using test::JpegColor;
using test::JpegSettings;

/// Noise over ramps: every pixel has something to tell, and chroma changes from block to block.
Bytes busy_pixels(int width, int height, int channels) {
  RandomStream random(3, Purpose::Test, static_cast<std::uint64_t>(width), 1);
  Bytes pixels;
  for (int i = 0; i < width * height * channels; ++i) {
    const int x = i / channels % width, y = i / channels / width, c = i % channels;
    const auto noise = static_cast<int>(random.below(60));
    pixels.push_back(static_cast<std::uint8_t>((x * (5 + 2 * c) + y * (9 - 3 * c)) % 190 + noise));
  }
  return pixels;
}

Box random_box(const Size& size, RandomStream& random) {
  const auto below = [&](int n) {
    return static_cast<int>(random.below(static_cast<unsigned>(n)));
  };
  const int width = 1 + below(size.width), height = 1 + below(size.height);
  return {below(size.width - width + 1), below(size.height - height + 1), width, height};
}

/// Boxes of every kind: whole, rows, columns, corners, single pixels, anywhere.
std::vector<Box> boxes_of(const Size& size, int count, RandomStream& random) {
  const int right = size.width - 1, bottom = size.height - 1;
  std::vector<Box> boxes{{0, 0, size.width, size.height}, {0, bottom / 2, size.width, 1},
                         {right / 2, 0, 1, size.height},  {0, 0, 1, 1},
                         {right, bottom, 1, 1},           {right, 0, 1, size.height},
                         {right / 2, bottom / 2, 1, 1}};
  for (int i = 0; i < count; ++i) boxes.push_back(random_box(size, random));
  return boxes;
}

void expect_parts(PartDecoder& decoder, const StoredImage& stored, int count,
                  RandomStream& random) {
  Image whole, part;
  if (stored.width > 0) {
    whole.reshape(stored.width, stored.height);
    std::copy(stored.bytes.begin(), stored.bytes.end(), whole.pixels.begin());
  } else {
    decode_image(stored.bytes, stored.name, whole);
  }
  const Size size{whole.width, whole.height};
  for (const Box& box : boxes_of(size, count, random)) {
    ASSERT_EQ(decoder.open(stored), size);
    decoder.read(box, part);
    ASSERT_EQ(part, crop(whole, box)) << stored.name << ": " << box.left << " " << box.top << " "
                                      << box.width << "x" << box.height;
  }
}

TEST(PartDecoder, EqualsTheWholeImageForEveryKindOfJpeg) {
  PartDecoder decoder;  // one for all: nothing is left of the image before
  RandomStream random(1, Purpose::Test);
  for (const auto& [width, height] : {std::pair{97, 75}, {64, 48}, {33, 130}, {3, 5}}) {
    for (const auto& [across, down] : {std::pair{1, 1}, {2, 1}, {2, 2}, {1, 2}, {4, 1}}) {
      for (const bool progressive : {false, true}) {
        for (const int restart : {0, 1}) {
          const Bytes file =
              test::write_jpeg(busy_pixels(width, height, 3), width, height, JpegColor::Rgb,
                               {.quality = 90,
                                .across = across,
                                .down = down,
                                .progressive = progressive,
                                .restart_rows = restart});
          const std::string name = cat(width, "x", height, " ", across, down, progressive, restart);
          expect_parts(decoder, {.bytes = file, .name = name}, 30, random);
        }
      }
    }
  }
  for (const JpegColor color : {JpegColor::Grey, JpegColor::Cmyk, JpegColor::Ycck}) {
    const int channels = color == JpegColor::Grey ? 1 : 4;
    const Bytes file = test::write_jpeg(busy_pixels(50, 40, channels), 50, 40, color);
    expect_parts(decoder, {.bytes = file, .name = "other colours"}, 30, random);
  }
}

TEST(PartDecoder, TakesOtherStoredForms) {
  PartDecoder decoder;
  RandomStream random(2, Purpose::Test);
  const Bytes pixels = busy_pixels(21, 17, 3);
  const Bytes png = test::write_png({pixels, 21, 17, 8, test::PngColor::Rgb});
  expect_parts(decoder, {.bytes = png, .name = "png"}, 20, random);
  expect_parts(decoder, {.bytes = pixels, .name = "raw", .width = 21, .height = 17}, 20, random);
  const Image decoded = test::noise_image(12, 9, 3);
  ASSERT_EQ(decoder.open(decoded), (Size{12, 9}));
  Image part;
  decoder.read({2, 3, 7, 5}, part);
  EXPECT_EQ(part, crop(decoded, {2, 3, 7, 5}));
}

// What is wrong above the end of the part is an error that names the file; what lies below is never
// looked at; the decoder goes on with the next file.
TEST(PartDecoder, NoticesDamageInWhatItReads) {
  const Bytes file = test::write_jpeg(busy_pixels(64, 64, 3), 64, 64, JpegColor::Rgb, {});
  const Bytes half(file.begin(), file.begin() + std::ssize(file) / 2);
  PartDecoder decoder;
  Image whole, part;
  decode_image(file, "whole", whole);
  const auto refusal = [&](const Bytes& bytes, const Box& box) -> std::string {
    try {
      decoder.open({.bytes = bytes, .name = "half.jpg"});
      decoder.read(box, part);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  const Box top{10, 8, 20, 8}, bottom{10, 50, 20, 8};
  EXPECT_EQ(refusal(half, top), "");
  EXPECT_EQ(part, crop(whole, top));
  EXPECT_TRUE(refusal(half, bottom).starts_with("half.jpg: corrupt JPEG: "));
  EXPECT_TRUE(refusal({file.begin(), file.begin() + 40}, top).starts_with("half.jpg: "));
  EXPECT_EQ(refusal({1, 2, 3}, top), "half.jpg: unknown image format; accepted: JPEG, PNG");
  EXPECT_EQ(refusal(file, bottom), "");
  EXPECT_EQ(part, crop(whole, bottom));
}

TEST(PartDecoder, RefusesGiganticImagesBeforeTheyAreDecoded) {
  Bytes file = test::write_jpeg(busy_pixels(16, 16, 3), 16, 16, JpegColor::Rgb, {});
  constexpr std::uint8_t kStartOfFrame[] = {0xFF, 0xC0};
  const auto frame =
      std::search(file.begin(), file.end(), std::begin(kStartOfFrame), std::end(kStartOfFrame));
  ASSERT_NE(frame, file.end());
  std::fill_n(frame + 5, 4, std::uint8_t{0xFD});  // height and width
  PartDecoder decoder;
  EXPECT_THROW(decoder.open({.bytes = file, .name = "bomb"}), Error);
}

TEST(PartDecoder, PartsOfTwoHundredPhotosEqualTheWhole) {
  const std::vector<Bytes> photos = test::sample_photos();
  if (photos.empty()) GTEST_SKIP() << test::kNoPhotos;
  PartDecoder decoder;
  RandomStream random(4, Purpose::Test);
  for (std::size_t i = 0; i < photos.size(); ++i) {
    const std::string name = cat("photo ", i);
    expect_parts(decoder, {.bytes = photos[i], .name = name}, 6, random);
  }
}

}  // namespace
}  // namespace ablate
