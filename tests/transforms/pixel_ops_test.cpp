#include "datasets/pixel_ops.h"

#include <gtest/gtest.h>

#include "datasets/affine.h"
#include "datasets/randaugment.h"
#include "tests/transforms/image_fixtures.h"

namespace ablate {
namespace {

using test::crc32;
using test::pattern_image;

constexpr Rgb kFill{124, 116, 104};

struct Golden {
  AugmentOp op;
  double argument;
  std::uint32_t crc;
  std::string row3;
};

// Pillow 9.4 on the 8 x 8 pattern, bicubic, filled with kFill.
const std::vector<Golden>& goldens() {
  static const std::vector<Golden> list{
      {AugmentOp::AutoContrast, 0, 0x02f0f1db, "b398b4d9ebc6ff3dd72091e946e4fa6b3604918a15b6dd27"},
      {AugmentOp::Equalize, 0, 0x2176d6a0, ""},
      {AugmentOp::Invert, 0, 0xa082501f, "4e685029153f04c22edf6f1dba1c0c95c9fb7076ea4b23d9"},
      {AugmentOp::Rotate, 27, 0x71f2b489, "68bbbfa2715ee426bb18c0f96893ae964e35a9a99c6373e8"},
      {AugmentOp::Rotate, -27, 0x8304b043, "5ca43a0000236449532888ba21fcff005391422bab1b7580"},
      {AugmentOp::Posterize, 1, 0x2662d5f9, "808080808080800080008080008080000000808000808000"},
      {AugmentOp::Solarize, 26, 0xc4817176, "4e685029153f04c22edf6f1dba1c0c95c9047076154b23d9"},
      {AugmentOp::SolarizeAdd, 99, 0xe6c456c6, "b197afd6eac0fba0d18390e2a8e3f3cd99678f8978b4dc89"},
      {AugmentOp::Color, 1.81, 0xd02a0f16, "bd8eb9cef2a6ff01ff00a3ff00ffff8c2d009c9100aef600"},
      {AugmentOp::Color, 0.19, 0xcca018d5, "a49fa4dde1d99d7895677c8ca0bec1473e3481806ab9c19e"},
      {AugmentOp::Contrast, 1.81, 0xa61ca58b, "d9aad5fffff4ff07ff009dff16ffff5800009b9100deff00"},
      {AugmentOp::Contrast, 0.19, 0xe5bcc0bc, "8883888f938b96728e6c82917392957b716782806a89906e"},
      {AugmentOp::Brightness, 1.81, 0x5ff05694, ""},
      {AugmentOp::Brightness, 0.19, 0xe508d88a, ""},
      {AugmentOp::Sharpness, 1.81, 0x7176c3dd, "b197aff5ffefff1dff00a0ff34ffff6a16008f8900b4dc26"},
      {AugmentOp::Sharpness, 0.19, 0xe224a15f, "b197afb6aa90bb5ca14f7fb255a3b36a55438f8944b4dc26"},
      {AugmentOp::ShearX, 0.27, 0x9f1742e8, "d2edbeff42cf2a86e040e7fd663b108b7f12b2d7257c7468"},
      {AugmentOp::ShearY, -0.27, 0x06cc6f84, "a490aee0ff9ee92ba6dc75872ebc658e866f0958553ba05d"},
      {AugmentOp::TranslateX, 0.405, 0x3e6be762,
       "08b6f251c1bb762e009da81bb9e7287c74687c74687c7468"},
      {AugmentOp::TranslateY, -0.405, 0x8cbfb4f4,
       "003b711c8e8241ffb76634c88b87d9b0daeaf92dfb0080ff"},
  };
  return list;
}

TEST(PixelOps, EqualPillow) {
  for (const Golden& golden : goldens()) {
    Image image = pattern_image(8);
    apply_augment_op(image, golden.op, golden.argument, kFill);
    const int op = static_cast<int>(golden.op);
    EXPECT_EQ(crc32(image), golden.crc) << "operation " << op << " with " << golden.argument;
    if (!golden.row3.empty()) {
      EXPECT_EQ(test::row_hex(image, 3), golden.row3) << "operation " << op;
    }
  }
}

TEST(PixelOps, HistogramOpsOfANarrowRangeEqualPillow) {
  Image narrow = pattern_image(32);
  for (std::uint8_t& v : narrow.pixels) v = static_cast<std::uint8_t>(v / 3 + 10);
  Image equalized = narrow;
  equalize(equalized);
  EXPECT_EQ(crc32(equalized), 0x46239674U);
  const std::vector<std::uint8_t> first{0, 63, 169, 36, 147, 193, 72, 228, 217, 111, 57, 238};
  EXPECT_TRUE(std::equal(first.begin(), first.end(), equalized.pixels.begin()));
  autocontrast(narrow);
  EXPECT_EQ(crc32(narrow), 0xd3609e38U);
  const std::vector<std::uint8_t> stretched{0, 63, 126, 36, 147, 144, 72, 228, 162, 111, 57, 177};
  EXPECT_TRUE(std::equal(stretched.begin(), stretched.end(), narrow.pixels.begin()));
}

TEST(PixelOps, RotationOfALargerImageEqualsPillow) {
  for (const auto& [degrees, crc] : {std::pair{45.0, 0xa808e233U}, std::pair{-13.7, 0x9f31c690U}}) {
    Image image = pattern_image(32);
    apply_augment_op(image, AugmentOp::Rotate, degrees, kFill);
    EXPECT_EQ(crc32(image), crc) << degrees;
  }
}

TEST(PixelOps, NeutralArgumentsChangeNothing) {
  const Image original = test::noise_image(23, 17, 5);
  const auto unchanged = [&](AugmentOp op, double argument) {
    Image image = original;
    apply_augment_op(image, op, argument, kFill);
    return image == original;
  };
  EXPECT_TRUE(unchanged(AugmentOp::Rotate, 0));
  EXPECT_TRUE(unchanged(AugmentOp::Posterize, 8));
  EXPECT_TRUE(unchanged(AugmentOp::Solarize, 256));
  EXPECT_TRUE(unchanged(AugmentOp::SolarizeAdd, 0));
  for (const AugmentOp op :
       {AugmentOp::Color, AugmentOp::Contrast, AugmentOp::Brightness, AugmentOp::Sharpness}) {
    EXPECT_TRUE(unchanged(op, 1)) << static_cast<int>(op);
  }
  for (const AugmentOp op :
       {AugmentOp::ShearX, AugmentOp::ShearY, AugmentOp::TranslateX, AugmentOp::TranslateY}) {
    EXPECT_TRUE(unchanged(op, 0)) << static_cast<int>(op);
  }
  Image twice = original;
  invert(twice);
  invert(twice);
  EXPECT_EQ(twice, original);
}

TEST(PixelOps, ShiftByWholePixelsMovesAndFills) {
  const Image image = test::noise_image(6, 4, 9);
  const Image moved = affine_bicubic(image, {1, 0, 2, 0, 1, -1}, {1, 2, 3});
  for (int y = 0; y < 4; ++y) {
    for (int x = 0; x < 6; ++x) {
      const bool inside = x + 2 < 6 && y - 1 >= 0;
      for (int c = 0; c < 3; ++c) {
        const int expected = inside ? image.row(y - 1)[3 * (x + 2) + c] : c + 1;
        EXPECT_EQ(moved.row(y)[3 * x + c], expected) << x << " " << y;
      }
    }
  }
}

TEST(PixelOps, TinyImagesAreFine) {
  for (const auto& [w, h] : {std::pair{1, 1}, std::pair{2, 5}, std::pair{3, 1}}) {
    for (int op = 0; op < kAugmentOps; ++op) {
      Image image = test::noise_image(w, h, 3);
      const auto kind = static_cast<AugmentOp>(op);
      apply_augment_op(image, kind, augment_argument(kind, 9, op % 2 == 0, true), kFill);
      EXPECT_EQ(image.pixels.size(), static_cast<std::size_t>(3 * w * h));
    }
  }
}

}  // namespace
}  // namespace ablate
