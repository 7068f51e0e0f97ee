#include "tests/end_to_end/process_table.h"

#include <charconv>
#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include <unistd.h>

#include "runner/core/text.h"

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

std::string proc_text(pid_t pid, const char* name) {
  std::ifstream in(cat("/proc/", pid, "/", name), std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<pid_t> other_processes() {
  std::vector<pid_t> pids;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc()) continue;
    if (pid != ::getpid()) pids.push_back(pid);
  }
  return pids;
}

/// Field 4 of /proc/PID/stat, behind the name in parentheses and the state.
pid_t parent_of(pid_t pid) {
  const std::string text = proc_text(pid, "stat");
  std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  std::string state;
  pid_t parent = 0;
  fields >> state >> parent;
  return parent;
}

}  // namespace

std::vector<ProcessEntry> processes_naming(const std::string& text) {
  std::vector<ProcessEntry> found;
  for (const pid_t pid : other_processes()) {
    const std::string line = proc_text(pid, "cmdline");
    if (line.find(text) == std::string::npos) continue;
    if (const auto id = process_id(pid)) found.push_back({*id, parent_of(pid), split(line, '\0')});
  }
  return found;
}

namespace {

std::vector<std::string> now_open_below(const fs::path& folder) {
  std::vector<std::string> found;
  for (const pid_t pid : other_processes()) {
    std::error_code ended;
    for (const auto& entry : fs::directory_iterator(cat("/proc/", pid, "/fd"), ended)) {
      std::error_code closed;
      const std::string file = fs::read_symlink(entry.path(), closed);
      if (file.starts_with(folder.string() + "/")) found.push_back(cat(pid, ": ", file));
    }
  }
  return found;
}

}  // namespace

std::vector<std::string> open_files_below(const fs::path& folder) {
  constexpr auto kPatience = std::chrono::seconds(10);
  const auto end = std::chrono::steady_clock::now() + kPatience;
  std::vector<std::string> found = now_open_below(folder);
  while (!found.empty() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    found = now_open_below(folder);
  }
  return found;
}

}  // namespace ablate::test
