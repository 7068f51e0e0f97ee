#include "datasets/linear_resize.h"

#include <gtest/gtest.h>

#include "tests/transforms/label_fixtures.h"

namespace ablate {
namespace {

using test::crc32;
using test::label_pattern;
using test::pattern_image;

Box whole(int width, int height) { return {0, 0, width, height}; }

// Goldens: OpenCV 4.6 and 5.0 (tests/golden/make_dense_golden.py).
TEST(LinearResize, EqualsOpenCv) {
  struct Case {
    int width, height;
    std::uint32_t image, labels;
  };
  for (const Case& c :
       {Case{5, 5, 0xbb089ffc, 0x79c6309f}, Case{13, 11, 0xd43d4104, 0x6639e1d2},
        Case{7, 16, 0x49ae36a6, 0xe135bcc0}, Case{64, 48, 0x0a689539, 0x7654e182}}) {
    const Box all = whole(c.width, c.height);
    EXPECT_EQ(crc32(linear_resize(pattern_image(32), c.width, c.height, all)), c.image);
    EXPECT_EQ(crc32(nearest_resize(label_pattern(32, 32), c.width, c.height, all).classes),
              c.labels);
  }
}

TEST(LinearResize, OfAWindowIsTheWindowOfTheWhole) {
  const Image image = test::noise_image(37, 29, 4);
  const LabelMap labels = label_pattern(37, 29);
  for (const auto& [width, height] : {std::pair{61, 80}, {20, 11}, {37, 29}}) {
    const Box window{3, 2, width - 8, height - 4};
    const Image all = linear_resize(image, width, height, whole(width, height));
    EXPECT_EQ(linear_resize(image, width, height, window), crop(all, window));
    const LabelMap map = nearest_resize(labels, width, height, whole(width, height));
    const LabelMap part = nearest_resize(labels, width, height, window);
    for (int y = 0; y < window.height; ++y) {
      for (int x = 0; x < window.width; ++x) {
        ASSERT_EQ(part.row(y)[x], map.row(y + window.top)[x + window.left]);
      }
    }
  }
}

TEST(LinearResize, ToItsOwnSizeChangesNothing) {
  const Image image = test::noise_image(40, 31, 5);
  EXPECT_EQ(linear_resize(image, 40, 31, whole(40, 31)), image);
  const LabelMap labels = label_pattern(40, 31);
  EXPECT_EQ(nearest_resize(labels, 40, 31, whole(40, 31)), labels);
}

// Of mmsegmentation's keep-ratio resize to (2048, 512).
TEST(SizeInFrame, Goldens) {
  const auto of = [](int width, int height) {
    const Size size = size_in_frame(width, height, 2048, 512);
    return std::pair{size.width, size.height};
  };
  EXPECT_EQ(of(683, 512), (std::pair{683, 512}));
  EXPECT_EQ(of(256, 256), (std::pair{512, 512}));
  EXPECT_EQ(of(500, 375), (std::pair{683, 512}));
  EXPECT_EQ(of(375, 500), (std::pair{512, 683}));
  EXPECT_EQ(of(3000, 500), (std::pair{2048, 341}));
}

}  // namespace
}  // namespace ablate
