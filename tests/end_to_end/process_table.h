#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runner/core/process.h"

namespace ablate::test {

/// A running process as /proc shows it.
struct ProcessEntry {
  ProcessId id;
  pid_t parent = 0;
  std::vector<std::string> arguments;
};

/// The processes, but for this one, with `text` in their command line.
std::vector<ProcessEntry> processes_naming(const std::string& text);

/// "PID: FILE" for every file below `folder` that another process has open. A process that was
/// killed gives up its files within moments: those still open after some seconds are told.
std::vector<std::string> open_files_below(const std::filesystem::path& folder);

}  // namespace ablate::test
