#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/source_tree.h"

namespace ablate::test {

/// The sweep files that come with the project, by name.
inline std::vector<std::filesystem::path> table_files() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(source_root() / "sweeps/tables")) {
    if (entry.path().extension() == ".toml") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

/// Tests that take one file each are named by it.
inline std::string name_of_table(const std::filesystem::path& file) { return file.stem().string(); }

}  // namespace ablate::test
