#include "tests/support/source_tree.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string_view>

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

const std::set<std::string> kCppExtensions{".h", ".cpp", ".cu", ".cuh", ".inc"};
const std::set<std::string> kTextExtensions{
    ".h",  ".cpp",  ".cu", ".cuh",  ".inc", ".txt",          ".cmake",     ".in",
    ".md", ".toml", ".py", ".json", ".sh",  ".clang-format", ".clang-tidy"};

std::vector<std::string> read_lines(const fs::path& file) {
  std::ifstream in(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(std::move(line));
  return lines;
}

/// Folders that hold nothing of ours: build trees, environments, results.
bool is_foreign(const fs::path& folder) {
  const std::string name = folder.filename();
  return name == ".git" || name == ".venv" || name == ".cache" || name == ".carry" ||
         name == "out" || name.starts_with("build");
}

/// What stands between the first `begin` and the `end` after it; empty without both.
std::string between(std::string_view line, std::string_view begin, std::string_view end) {
  const std::size_t at = line.find(begin);
  if (at == std::string_view::npos) return "";
  const std::size_t from = at + begin.size();
  const std::size_t to = line.find(end, from);
  return to == std::string_view::npos ? "" : std::string(line.substr(from, to - from));
}

template <typename Wanted>
std::vector<SourceFile> collect(const Wanted& wanted) {
  const fs::path root = source_root();
  std::vector<SourceFile> files;
  for (auto it = fs::recursive_directory_iterator(root); it != fs::recursive_directory_iterator();
       ++it) {
    if (it->is_directory() && is_foreign(it->path())) it.disable_recursion_pending();
    if (!it->is_regular_file() || !wanted(it->path())) continue;
    files.push_back({fs::relative(it->path(), root).generic_string(), read_lines(it->path())});
  }
  std::ranges::sort(files, {}, &SourceFile::path);
  return files;
}

}  // namespace

fs::path source_root() { return fs::path(__FILE__).parent_path().parent_path().parent_path(); }

fs::path shared_folder() {
  if (const char* set = std::getenv("ABLATE_SHARED")) return set;
  return source_root() / "../shared";
}

std::vector<SourceFile> cpp_sources() {
  return collect([](const fs::path& p) { return kCppExtensions.contains(p.extension()); });
}

std::vector<SourceFile> text_files() {
  return collect([](const fs::path& p) {
    const std::string folder = p.parent_path().filename();
    const std::string kind = p.has_extension() ? p.extension() : p.filename();
    return kTextExtensions.contains(kind) || folder == "scripts" || folder == ".ci";
  });
}

std::vector<RegisteredName> registered_literals() {
  constexpr std::size_t kReach = 3;  // the name is the first member, so it is close to the Add
  std::vector<RegisteredName> result;
  for (const SourceFile& file : cpp_sources()) {
    if (file.path.starts_with("tests/")) continue;
    for (std::size_t i = 0; i < file.lines.size(); ++i) {
      const std::string info = between(file.lines[i], "Registry<", ">::Add");
      if (info.empty()) continue;
      for (std::size_t j = i; j < std::min(i + kReach, file.lines.size()); ++j) {
        const std::string name = between(file.lines[j], ".name = \"", "\"");
        if (name.empty()) continue;
        result.push_back({file.path, info, name});
        break;
      }
    }
  }
  return result;
}

}  // namespace ablate::test
