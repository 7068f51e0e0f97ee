#include "runner/train/facts.h"

#include <fstream>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "runner/core/build_info.h"
#include "runner/core/files.h"
#include "runner/core/process.h"
#include "runner/measure/cuda_devices.h"
#include "runner/measure/nvml.h"
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

bool is_cuda(const std::string& device) { return device.starts_with("cuda"); }

/// The clock is the device's highest: the present one would make every attempt a new machine.
void add_gpu(nlohmann::json& facts, const CudaDevice& device) {
  const NvmlFacts nvml = nvml_facts(device.uuid);
  facts["gpu_model"] = device.name;
  facts["gpu_uuid"] = device.uuid;
  facts["gpu_mem_bytes"] = device.total_bytes;
  if (nvml.max_sm_clock_mhz) facts["sm_clock_mhz"] = *nvml.max_sm_clock_mhz;
  if (nvml.power_limit_w) facts["power_limit_w"] = *nvml.power_limit_w;
  if (nvml.ecc) facts["ecc"] = *nvml.ecc ? 1 : 0;
}

}  // namespace

nlohmann::json toolchain_facts(const std::string& device) {
  const BuildInfo& build = build_info();
  nlohmann::json facts = {{"git_commit", build.revision}, {"git_dirty", build.dirty ? 1 : 0},
                          {"libtorch", TORCH_VERSION},    {"cuda", build.cuda},
                          {"mpi", mpi_library_version()}, {"compiler", build.compiler}};
  if (is_cuda(device)) {
    const CudaLibraries libraries = cuda_libraries();
    facts["driver"] = libraries.driver;
    facts["cudnn"] = libraries.cudnn;
    facts["nccl"] = libraries.nccl;
  }
  return facts;
}

nlohmann::json machine_facts(const std::filesystem::path& out, const std::string& device) {
  nlohmann::json facts = {{"hostname", host_name()},
                          {"cpu", cpu_model()},
                          {"cores", std::thread::hardware_concurrency()},
                          {"fs_type", file_system_name(file_system_kind(out))}};
  if (is_cuda(device)) add_gpu(facts, find_cuda_device(device));
  return facts;
}

}  // namespace ablate
