#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ablate {

/// The class of each pixel of an image, rows from top to bottom. Value type.
struct LabelMap {
  /// Pixels of no class: neither trained on nor counted.
  static constexpr std::uint8_t kIgnore = 255;

  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> classes;  ///< height * width

  const std::uint8_t* row(int y) const {
    return classes.data() + static_cast<std::size_t>(width) * static_cast<std::size_t>(y);
  }
  std::uint8_t* row(int y) {
    return classes.data() + static_cast<std::size_t>(width) * static_cast<std::size_t>(y);
  }

  /// Takes a new size, reusing the buffer; values are unspecified afterwards.
  void reshape(int new_width, int new_height) {
    width = new_width;
    height = new_height;
    classes.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
  }

  bool operator==(const LabelMap&) const = default;
};

}  // namespace ablate
