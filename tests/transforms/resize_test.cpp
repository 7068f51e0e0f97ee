#include "datasets/resize.h"

#include <gtest/gtest.h>

#include "datasets/geometry.h"
#include "tests/transforms/image_fixtures.h"

namespace ablate {
namespace {

using test::crc32;
using test::pattern_image;

TEST(Fixture, PatternImage) {
  EXPECT_EQ(crc32(pattern_image(8)), 0x2176d6a0U);
  EXPECT_EQ(crc32(pattern_image(32)), 0xbff0ef4bU);
  EXPECT_EQ(test::row_hex(pattern_image(8), 0), "0040802593914ae6a26f39b3948cc4b9dfd5de32e60385f7");
}

// Goldens: Pillow 9.4.
TEST(Resize, BicubicEqualsPillow) {
  struct Case {
    int side, width, height;
    std::uint32_t crc;
  };
  for (const Case& c :
       {Case{8, 5, 5, 0xd26e0596}, Case{8, 13, 11, 0x11fbea72}, Case{8, 7, 16, 0x0f3a6b73},
        Case{8, 224, 224, 0x12a04631}, Case{32, 5, 5, 0x0789d1e1}, Case{32, 13, 11, 0x2582c098},
        Case{32, 7, 16, 0xa0743d79}, Case{32, 224, 224, 0x6ba52ea7}}) {
    const Image out = resize(pattern_image(c.side), c.width, c.height, Filter::Bicubic);
    EXPECT_EQ(out.width, c.width);
    EXPECT_EQ(out.height, c.height);
    EXPECT_EQ(crc32(out), c.crc) << c.side << " -> " << c.width << "x" << c.height;
  }
}

TEST(Resize, OfABoxEqualsPillow) {
  struct Case {
    Box box;
    int width, height;
    Filter filter;
    std::uint32_t crc;
  };
  for (const Case& c : {Case{{3, 5, 21, 24}, 16, 16, Filter::Bilinear, 0x981bcc79},
                        Case{{3, 5, 21, 24}, 16, 16, Filter::Bicubic, 0xbbe23d6d},
                        Case{{0, 0, 32, 7}, 48, 5, Filter::Bicubic, 0xfe0a4410},
                        Case{{10, 0, 1, 32}, 9, 20, Filter::Bilinear, 0xca6376f4},
                        Case{{4, 4, 24, 24}, 24, 11, Filter::Bicubic, 0x5edc8eb2}}) {
    const Image image = pattern_image(32);
    const Image out = resize(image, c.box, c.width, c.height, c.filter);
    EXPECT_EQ(crc32(out), c.crc);
    EXPECT_EQ(out, resize(crop(image, c.box), c.width, c.height, c.filter));
  }
}

TEST(Resize, KeepsConstantsAndSizes) {
  Image flat;
  flat.reshape(37, 23);
  std::fill(flat.pixels.begin(), flat.pixels.end(), std::uint8_t{201});
  for (const Filter filter : {Filter::Bilinear, Filter::Bicubic}) {
    for (const std::uint8_t v : resize(flat, 11, 60, filter).pixels) ASSERT_EQ(v, 201);
  }
  const Image noise = test::noise_image(9, 14, 1);
  EXPECT_EQ(resize(noise, 9, 14, Filter::Bicubic), noise);
}

// Of every window, from no more than the pixels that source_box() names.
TEST(Resize, OfAWindowEqualsTheWholeResize) {
  RandomStream random(6, Purpose::Test);
  const auto below = [&](int n) {
    return static_cast<int>(random.below(static_cast<unsigned>(n)));
  };
  Resizer resizer;
  for (int round = 0; round < 300; ++round) {
    const Size whole{1 + below(60), 1 + below(60)};
    const Size target{below(4) == 0 ? whole.width : 1 + below(50),
                      below(4) == 0 ? whole.height : 1 + below(50)};
    const int width = 1 + below(target.width), height = 1 + below(target.height);
    const Box window{below(target.width - width + 1), below(target.height - height + 1), width,
                     height};
    const Filter filter = below(2) == 0 ? Filter::Bilinear : Filter::Bicubic;
    const Image image = test::noise_image(whole.width, whole.height, static_cast<unsigned>(round));
    const Image expected = crop(resize(image, target.width, target.height, filter), window);
    const ResizedWindow resized{whole, target, window, filter};
    const Box source = source_box(resized);
    Image out;
    resizer(resized, crop(image, source), 0, 0, out);
    ASSERT_EQ(out, expected) << round;
    resizer(resized, image, source.left, source.top, out);
    ASSERT_EQ(out, expected) << round;
  }
}

// Doubling with the triangle filter: weights 3/4 and 1/4, the border clamped.
TEST(Resize, BilinearByHand) {
  Image image;
  image.reshape(2, 1);
  image.pixels = {0, 100, 8, 100, 0, 8};
  const Image out = resize(image, 4, 1, Filter::Bilinear);
  const std::vector<std::uint8_t> expected{0, 100, 8, 25, 75, 8, 75, 25, 8, 100, 0, 8};
  EXPECT_EQ(out.pixels, expected);
}

}  // namespace
}  // namespace ablate
