#include "sweeps/job_record.h"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <fstream>
#include <iterator>

#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate {
namespace {

using nlohmann::json;

constexpr double kLeftoverGraceSeconds = 2;

std::filesystem::path record_file(const RunPaths& paths) { return paths.directory / "job.json"; }

/// Arguments of a process, separated by zero bytes; empty when it is gone.
std::string command_line(const std::filesystem::path& process) {
  std::ifstream in(process / "cmdline", std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

void write_job_record(const RunPaths& paths, const JobRecord& record) {
  const json text = {{"attempt", record.attempt},
                     {"handle", record.handle},
                     {"total_steps", record.total_steps},
                     {"global_batch", record.global_batch}};
  write_file_atomic(record_file(paths), text.dump());
}

std::optional<JobRecord> read_job_record(const RunPaths& paths) {
  if (!std::filesystem::exists(record_file(paths))) return std::nullopt;
  const json text = json::parse(read_file(record_file(paths)), nullptr, false);
  try {
    return JobRecord{text.at("attempt").get<int>(), text.at("handle"),
                     text.value("total_steps", std::int64_t{0}),
                     text.value("global_batch", std::int64_t{0})};
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

void remove_job_record(const RunPaths& paths) {
  std::error_code ignored;
  std::filesystem::remove(record_file(paths), ignored);
}

int end_leftovers(const RunPaths& paths) {
  const std::string spec = paths.spec().string();
  int ended = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc()) continue;
    if (pid == ::getpid()) continue;
    const std::vector<std::string> arguments = split(command_line(entry.path()), '\0');
    // The specs of one or more runs follow the verb.
    const auto verb = std::find(arguments.begin(), arguments.end(), "run");
    const auto options = std::find_if(verb, arguments.end(), [](const std::string& argument) {
      return argument.starts_with("--");
    });
    if (std::find(verb, options, spec) == options) continue;
    const auto identity = process_id(pid);
    if (identity && end_process(*identity, kLeftoverGraceSeconds)) ++ended;
  }
  return ended;
}

}  // namespace ablate
