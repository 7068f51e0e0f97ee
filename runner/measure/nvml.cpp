#include "runner/measure/nvml.h"

#include <array>

#include <dlfcn.h>

namespace ablate {
namespace {

/// The driver brings the library, so a program that must start without one cannot link it. These
/// declarations are those of its stable C interface.
class Nvml {
 public:
  using Device = void*;

  Nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (library_ != nullptr) ready_ = call<int()>("nvmlInit_v2");
  }
  ~Nvml() {
    if (ready_) call<int()>("nvmlShutdown");
    if (library_ != nullptr) dlclose(library_);
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  bool ready() const { return ready_; }

  /// Whether the function exists and succeeded.
  template <typename Function, typename... Arguments>
  bool call(const char* name, Arguments... arguments) const {
    auto* function = reinterpret_cast<Function*>(dlsym(library_, name));
    return function != nullptr && function(arguments...) == 0;
  }

 private:
  void* library_;
  bool ready_ = false;
};

constexpr int kSmClock = 1;

std::optional<int> clock(const Nvml& nvml, const char* name, Nvml::Device device) {
  unsigned mhz = 0;
  if (!nvml.call<int(Nvml::Device, int, unsigned*)>(name, device, kSmClock, &mhz)) return {};
  return static_cast<int>(mhz);
}

}  // namespace

std::string nvidia_driver_version() {
  const Nvml nvml;
  std::array<char, 96> text{};
  const auto size = static_cast<unsigned>(text.size());
  if (!nvml.ready()) return {};
  if (!nvml.call<int(char*, unsigned)>("nvmlSystemGetDriverVersion", text.data(), size)) return {};
  return text.data();
}

NvmlFacts nvml_facts(const std::string& uuid) {
  NvmlFacts facts;
  const Nvml nvml;
  Nvml::Device device = nullptr;
  if (!nvml.ready() || !nvml.call<int(const char*, Nvml::Device*)>("nvmlDeviceGetHandleByUUID",
                                                                   uuid.c_str(), &device)) {
    return facts;
  }
  facts.sm_clock_mhz = clock(nvml, "nvmlDeviceGetClockInfo", device);
  facts.max_sm_clock_mhz = clock(nvml, "nvmlDeviceGetMaxClockInfo", device);
  unsigned milliwatts = 0;
  if (nvml.call<int(Nvml::Device, unsigned*)>("nvmlDeviceGetEnforcedPowerLimit", device,
                                              &milliwatts)) {
    facts.power_limit_w = static_cast<int>((milliwatts + 500) / 1000);
  }
  int now = 0, later = 0;
  if (nvml.call<int(Nvml::Device, int*, int*)>("nvmlDeviceGetEccMode", device, &now, &later)) {
    facts.ecc = now != 0;
  }
  return facts;
}

}  // namespace ablate
