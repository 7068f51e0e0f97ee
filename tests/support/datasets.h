#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/recipe.h"
#include "runner/core/params.h"
#include "runner/core/value.h"
#include "tests/support/source_tree.h"

namespace ablate::test {

/// Opens a registered data set from the TOML text of its settings.
inline DatasetSplits open_dataset(std::string_view name, std::string_view settings = "",
                                  const std::filesystem::path& root = {}) {
  const Value table = parse_toml(settings, "test");
  Params params(table, "dataset");
  const DatasetOpener open = Registry<DatasetInfo>::get(name).configure(params);
  params.finish();
  return open(root);
}

/// An augmentation from its name and the TOML text of its settings.
inline AugmentRecipe make_recipe(std::string_view name, int image_size,
                                 std::string_view settings = "") {
  const Value table = parse_toml(settings, "test");
  Params params(table, "augmentation");
  AugmentRecipe recipe = read_augmentation(name, params, image_size);
  params.finish();
  return recipe;
}

inline Image load_image(const Dataset& dataset, std::int64_t index) {
  Image image;
  dataset.load(index, image);
  return image;
}

/// Writes bytes, making the folders on the way.
inline void write_bytes(const std::filesystem::path& file, const std::vector<std::uint8_t>& bytes) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
}

}  // namespace ablate::test
