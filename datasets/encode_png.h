#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "datasets/image.h"
#include "datasets/label_map.h"

namespace ablate {

/// Colour of a class in pictures: its bits spread over the upper bits of red, green and blue in
/// turn, so that near numbers look different; LabelMap::kIgnore is black.
using ClassColor = std::array<std::uint8_t, Image::kChannels>;
ClassColor class_color(std::uint8_t label);

/// Bytes of a PNG file.
std::string encode_png(const Image& image);
/// Bytes of a PNG file with a palette whose values are class + 1, and 0 for no class: how
/// annotations of ADEChallengeData2016 and submissions to its benchmark are stored. Classes are
/// below 255.
std::string encode_png(const LabelMap& labels);

}  // namespace ablate
