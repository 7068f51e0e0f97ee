#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace ablate::test {

/// Root of the repository the tests were built from.
std::filesystem::path source_root();

/// Real data outside the repository: $ABLATE_SHARED, else `shared` beside the root. May not exist.
std::filesystem::path shared_folder();

struct SourceFile {
  std::string path;  ///< from the root, with slashes: "runner/core/error.h"
  std::vector<std::string> lines;
};

/// Our C++ and CUDA files (.h, .cpp, .cu, .cuh, .inc) in path order, without generated ones.
std::vector<SourceFile> cpp_sources();

/// Every text file of ours: the sources, build files, scripts, documents and tables.
std::vector<SourceFile> text_files();

struct RegisteredName {
  std::string path;  ///< the file that registers it
  std::string info;  ///< "MethodInfo", "DatasetInfo", ...
  std::string name;
};

/// Names written as literals in `Registry<Info>::Add` objects of the sources. A file that computes
/// its names (a family of models) contributes nothing.
std::vector<RegisteredName> registered_literals();

}  // namespace ablate::test
