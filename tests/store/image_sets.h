#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>

#include "datasets/store/encode_jpeg.h"
#include "tests/support/datasets.h"
#include "tests/support/temp_folder.h"
#include "tests/transforms/image_fixtures.h"
#include "tests/transforms/image_writers.h"
#include "tests/transforms/jpeg_samples.h"

namespace ablate::test {

/// The file of a small JPEG of noise; another seed, another content.
inline std::string noise_jpeg(std::uint64_t seed, int width = 24, int height = 20) {
  return encode_jpeg(noise_image(width, height, seed), 90);
}

/// The file of a 3x1 grey PNG.
inline std::string small_png() {
  const Bytes png = write_png(
      {.rows = {10, 200, 77}, .width = 3, .height = 1, .depth = 8, .color = PngColor::Grey});
  return {png.begin(), png.end()};
}

inline void write_text(const std::filesystem::path& file, std::string_view text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

/// Makes ROOT/train with `classes` folders of `of_each` images, ROOT/val with one image a class.
inline void write_image_folder(const std::filesystem::path& root, int classes, int of_each) {
  std::uint64_t seed = 0;
  for (int c = 0; c < classes; ++c) {
    const std::string name = "class" + std::to_string(c);
    for (int i = 0; i < of_each; ++i) {
      write_text(root / "train" / name / (std::to_string(i) + ".jpg"), noise_jpeg(++seed));
    }
    write_text(root / "val" / name / "v.jpg", noise_jpeg(1000 + ++seed));
  }
}

/// Writes a tar file by libarchive; `filter` ARCHIVE_FILTER_GZIP compresses it.
inline void write_tar(const std::filesystem::path& file,
                      const std::vector<std::pair<std::string, std::string>>& members,
                      int format = ARCHIVE_FORMAT_TAR_USTAR, int filter = ARCHIVE_FILTER_NONE) {
  std::filesystem::create_directories(file.parent_path());
  archive* tar = archive_write_new();
  archive_write_set_format(tar, format);
  archive_write_add_filter(tar, filter);
  ASSERT_EQ(archive_write_open_filename(tar, file.c_str()), ARCHIVE_OK);
  for (const auto& [name, content] : members) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, name.c_str());
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, static_cast<la_int64_t>(content.size()));
    EXPECT_EQ(archive_write_header(tar, entry), ARCHIVE_OK);
    archive_write_data(tar, content.data(), content.size());
    archive_entry_free(entry);
  }
  archive_write_close(tar);
  archive_write_free(tar);
}

}  // namespace ablate::test
