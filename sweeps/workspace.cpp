#include "sweeps/workspace.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string_view>

#include <unistd.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr std::string_view kDataPrefix = "ABLATE_DATA_";

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return text;
}

std::filesystem::path existing(const std::string& name, const std::string& folder,
                               std::string_view where) {
  if (!std::filesystem::exists(folder)) {
    throw SpecError(cat(where, ": ", folder, " does not exist; the folder of data set \"", name,
                        "\" is expected"));
  }
  return std::filesystem::absolute(folder);
}

}  // namespace

const std::filesystem::path& Workspace::require_train_program() const {
  if (train_program.empty()) {
    throw Error(
        "ablate-train was not found beside ablate: build it (scripts/setup, then the release "
        "preset) or let ABLATE_TRAIN name it");
  }
  return train_program;
}

std::vector<std::string> Workspace::data_arguments() const {
  std::vector<std::string> arguments;
  for (const auto& [name, folder] : data) {
    arguments.push_back("--data");
    arguments.push_back(cat(name, "=", folder.string()));
  }
  return arguments;
}

std::filesystem::path program_folder() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path();
}

std::filesystem::path find_train_program() {
  if (const char* named = std::getenv("ABLATE_TRAIN"); named != nullptr && *named != '\0') {
    if (::access(named, X_OK) != 0) {
      throw SpecError(cat("ABLATE_TRAIN=", named, " is not a program that can be started"));
    }
    return std::filesystem::absolute(named);
  }
  const std::filesystem::path beside = program_folder() / "ablate-train";
  return ::access(beside.c_str(), X_OK) == 0 ? beside : std::filesystem::path();
}

std::map<std::string, std::filesystem::path> collect_data(const std::vector<std::string>& texts) {
  std::map<std::string, std::filesystem::path> data;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::size_t equals = text.find('=');
    if (!text.starts_with(kDataPrefix) || equals == std::string_view::npos) continue;
    const std::string variable(text.substr(0, equals));
    const std::string name = lower_case(variable.substr(kDataPrefix.size()));
    data[name] = existing(name, std::string(text.substr(equals + 1)), variable);
  }
  for (const std::string& text : texts) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
      throw SpecError(cat("--data ", text, ": NAME=DIR is expected, such as cifar100=/data/cifar"));
    }
    const std::string name = text.substr(0, equals);
    data[name] = existing(name, text.substr(equals + 1), "--data " + text);
  }
  return data;
}

}  // namespace ablate
