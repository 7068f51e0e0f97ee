#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "tests/support/source_tree.h"

namespace ablate::test {

inline constexpr const char* kNoPhotos =
    "needs data/imagenet-sample below ABLATE_SHARED or ../shared";

/// The files of the sample of ImageNet, in byte order of their paths; none where it is missing.
inline std::vector<std::vector<std::uint8_t>> sample_photos() {
  const std::filesystem::path root = shared_folder() / "data/imagenet-sample/train";
  std::vector<std::filesystem::path> files;
  if (!std::filesystem::is_directory(root)) return {};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  std::vector<std::vector<std::uint8_t>> photos;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    photos.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return photos;
}

}  // namespace ablate::test
