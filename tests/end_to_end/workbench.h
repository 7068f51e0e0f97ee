#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "runner/core/files.h"
#include "tests/support/programs.h"
#include "tests/support/temp_folder.h"

namespace ablate::test {

/// `ablate` as a user starts it, in `folder`, with the real ablate-train.
inline ProcessOptions real_ablate(const std::filesystem::path& folder,
                                  std::vector<std::string> arguments) {
  ProcessOptions options = ablate_process(folder, std::move(arguments));
  for (auto& [name, value] : options.environment) {
    if (name == "ABLATE_TRAIN") value = program("ablate-train").string();
  }
  return options;
}

/// A folder with sweep files, and the two programs in it. Output goes to its `out`.
class Workbench {
 public:
  explicit Workbench(const std::filesystem::path& folder) : folder_(folder) {}

  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }
  std::filesystem::path out() const { return folder_ / "out"; }

  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
    return name;
  }
  CapturedRun ablate(std::vector<std::string> arguments) const {
    return run_and_capture(real_ablate(folder_, std::move(arguments)), {}, 300);
  }
  /// One rank by hand, as `ablate-train run FILE` with output to `out`.
  CapturedRun train(std::vector<std::string> arguments) const {
    ProcessOptions options = real_ablate(folder_, {});
    arguments.insert(arguments.begin(), {program("ablate-train").string(), "run"});
    options.arguments = std::move(arguments);
    options.environment.emplace_back("OMP_NUM_THREADS", "1");
    return run_and_capture(options, {}, 300);
  }
  /// The answer of `ablate query` as CSV without its heading.
  std::string query(const std::string& sql) const {
    const std::string text = ablate({"query", sql, "--format", "csv"}).output;
    return text.substr(text.find('\n') + 1);
  }

 private:
  std::filesystem::path folder_;
};

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

}  // namespace ablate::test
