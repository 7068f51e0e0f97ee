#include "runner/train/utilisation.h"

#include "runner/measure/cuda_devices.h"
#include "runner/measure/device_peak.h"
#include "runner/measure/mac_counter.h"

namespace ablate {

Utilisation::Utilisation(Surgeon& surgeon, at::Device device, std::string dtype, int ranks)
    : surgeon_(surgeon), dtype_(std::move(dtype)), ranks_(ranks) {
  if (device.is_cuda()) device_name_ = find_cuda_device(device.str()).name;
}

std::optional<double> Utilisation::of(double images_per_s) {
  if (!device_peak_flops(device_name_, dtype_)) return {};
  if (generation_ != surgeon_.generation()) {
    macs_ = static_cast<double>(measure_cost(surgeon_.model()).macs);
    generation_ = surgeon_.generation();
  }
  return model_flops_utilisation(macs_, BenchKind::Train, images_per_s / ranks_, device_name_,
                                 dtype_);
}

}  // namespace ablate
