#pragma once

#include <optional>
#include <string>

namespace ablate {

/// What the driver's management library says of one device; empty where it does not.
struct NvmlFacts {
  std::optional<int> sm_clock_mhz;      ///< at this moment
  std::optional<int> max_sm_clock_mhz;  ///< of the device
  std::optional<int> power_limit_w;
  std::optional<bool> ecc;
};

/// The driver's version, "580.159.04"; empty without a driver. Creates no context on any device.
std::string nvidia_driver_version();

/// By the device's uuid, "GPU-...".
NvmlFacts nvml_facts(const std::string& uuid);

}  // namespace ablate
