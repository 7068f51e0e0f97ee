#include <iomanip>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/text.h"
#include "runner/measure/cuda_devices.h"
#include "runner/measure/nvml.h"
#include "runner/worker/verb.h"

namespace ablate::worker::devices {
namespace {

using nlohmann::json;

json device_json(const CudaDevice& device, bool measure_free) {
  json row = {{"index", device.index},
              {"name", device.name},
              {"uuid", device.uuid},
              {"compute_capability", device.compute_capability},
              {"multiprocessors", device.multiprocessors},
              {"total_bytes", device.total_bytes}};
  if (measure_free) row["free_bytes"] = free_device_bytes(device.index);
  const NvmlFacts facts = nvml_facts(device.uuid);
  if (facts.sm_clock_mhz) row["sm_clock_mhz"] = *facts.sm_clock_mhz;
  if (facts.max_sm_clock_mhz) row["max_sm_clock_mhz"] = *facts.max_sm_clock_mhz;
  if (facts.power_limit_w) row["power_limit_w"] = *facts.power_limit_w;
  if (facts.ecc) row["ecc"] = *facts.ecc;
  return row;
}

json describe_devices(bool measure_free) {
  const CudaDevices found = find_cuda_devices();
  const CudaLibraries libraries = cuda_libraries();
  json list = json::array();
  for (const CudaDevice& device : found.devices) list.push_back(device_json(device, measure_free));
  return {{"devices", std::move(list)},
          {"why_none", found.why_none},
          {"driver", libraries.driver},
          {"cuda_driver", libraries.cuda_driver},
          {"cuda_runtime", libraries.cuda_runtime},
          {"cudnn", libraries.cudnn},
          {"nccl", libraries.nccl}};
}

void print(const json& found) {
  constexpr double kGiB = 1 << 30;
  for (const json& device : found.at("devices")) {
    std::cout << "cuda:" << device.at("index") << "  " << device.at("name").get<std::string>()
              << std::fixed << std::setprecision(1) << ", "
              << device.value("free_bytes", 0.0) / kGiB << " of "
              << device.at("total_bytes").get<double>() / kGiB << " GiB free, sm "
              << device.at("compute_capability").get<std::string>() << ", "
              << device.at("multiprocessors") << " multiprocessors\n";
  }
  if (found.at("devices").empty()) {
    std::cout << "no CUDA device: " << found.at("why_none").get<std::string>() << "\n";
  }
  for (const char* library : {"driver", "cuda_driver", "cuda_runtime", "cudnn", "nccl"}) {
    const auto version = found.at(library).get<std::string>();
    std::cout << library << " " << (version.empty() ? "none" : version) << "\n";
  }
}

const Registry<Verb>::Add added{{
    .name = "devices",
    .summary = "CUDA devices of this machine, their memory, and the versions of CUDA's libraries",
    .examples = "  ablate-train devices\n"
                "  ablate-train devices --json | jq '.devices | length'\n",
    .add = [](CLI::App& app) -> std::function<int()> {
      const auto as_json = std::make_shared<bool>(false), no_free = std::make_shared<bool>(false);
      app.add_flag("--json", *as_json, "One JSON object");
      app.add_flag("--no-free", *no_free,
                   "Leave out the free memory, whose measurement takes some of it for a moment");
      return [as_json, no_free] {
        const json found = describe_devices(!*no_free);
        if (*as_json) {
          std::cout << found.dump(1) << "\n";
        } else {
          print(found);
        }
        return static_cast<int>(ExitCode::Done);
      };
    },
}};

}  // namespace
}  // namespace ablate::worker::devices
