#include "runner/train/facts.h"

#include <fstream>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "runner/core/build_info.h"
#include "runner/core/files.h"
#include "runner/core/process.h"
#include "runner/torch/torch.h"

namespace ablate {
namespace {

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

}  // namespace

nlohmann::json toolchain_facts() {
  const BuildInfo& build = build_info();
  return {{"git_commit", build.revision}, {"git_dirty", build.dirty ? 1 : 0},
          {"libtorch", TORCH_VERSION},    {"cuda", build.cuda},
          {"mpi", mpi_library_version()}, {"compiler", build.compiler}};
}

nlohmann::json machine_facts(const std::filesystem::path& out) {
  return {{"hostname", host_name()},
          {"cpu", cpu_model()},
          {"cores", std::thread::hardware_concurrency()},
          {"fs_type", file_system_name(file_system_kind(out))}};
}

}  // namespace ablate
