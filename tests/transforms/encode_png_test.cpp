#include "datasets/encode_png.h"

#include <set>

#include <gtest/gtest.h>

#include "datasets/decode.h"
#include "tests/transforms/label_fixtures.h"

namespace ablate {
namespace {

std::span<const std::uint8_t> as_bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

TEST(EncodedPng, ReadsBackAsTheImage) {
  const Image image = test::noise_image(31, 17, 8);
  const std::string file = encode_png(image);
  Image back;
  decode_image(as_bytes_of(file), "test", back);
  EXPECT_EQ(back, image);
}

// Values are class + 1; as a picture each class has its colour.
TEST(EncodedPng, OfLabelsKeepsClassesAndShowsColours) {
  const LabelMap labels = test::label_pattern(40, 23);
  const std::string file = encode_png(labels);
  LabelMap stored;
  decode_label_map(as_bytes_of(file), "test", stored);
  Image picture;
  decode_image(as_bytes_of(file), "test", picture);
  for (std::size_t i = 0; i < labels.classes.size(); ++i) {
    const std::uint8_t label = labels.classes[i];
    ASSERT_EQ(stored.classes[i], label == LabelMap::kIgnore ? 0 : label + 1);
    const ClassColor color = class_color(label);
    for (std::size_t c = 0; c < 3; ++c) ASSERT_EQ(picture.pixels[3 * i + c], color[c]);
  }
}

TEST(ClassColors, AreAllDifferent) {
  std::set<ClassColor> colors;
  for (int label = 0; label < 256; ++label) {
    colors.insert(class_color(static_cast<std::uint8_t>(label)));
  }
  EXPECT_EQ(colors.size(), 256U);
  EXPECT_EQ(class_color(LabelMap::kIgnore), (ClassColor{0, 0, 0}));
  EXPECT_EQ(class_color(0), (ClassColor{128, 0, 0}));
}

}  // namespace
}  // namespace ablate
