#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "runner/core/process.h"

namespace ablate::test {

/// Folder of this test program; fake_train lies beside it.
inline std::filesystem::path test_folder() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path();
}

inline std::filesystem::path fake_train() { return test_folder() / "fake_train"; }

/// A program of the build: from $ABLATE_BIN, else from where the build puts it.
inline std::filesystem::path program(const std::string& name) {
  const char* folder = std::getenv("ABLATE_BIN");
  return (folder != nullptr ? std::filesystem::path(folder) : test_folder() / "../bin") / name;
}

/// Options that start `ablate` with the stand-in for ablate-train and nothing of the user's.
inline ProcessOptions ablate_process(const std::filesystem::path& folder,
                                     std::vector<std::string> arguments) {
  ProcessOptions options;
  options.arguments = std::move(arguments);
  options.arguments.insert(options.arguments.begin(), program("ablate").string());
  options.environment = {{"ABLATE_TRAIN", fake_train().string()},
                         {"ABLATE_OUT", ""},
                         {"ABLATE_DB", ""},
                         {"LC_ALL", "C.UTF-8"},
                         {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                         {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}};
  options.working_folder = folder;
  return options;
}

inline CapturedRun run_ablate(const std::filesystem::path& folder,
                              std::vector<std::string> arguments) {
  return run_and_capture(ablate_process(folder, std::move(arguments)), {}, 120);
}

}  // namespace ablate::test
