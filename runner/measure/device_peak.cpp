#include "runner/measure/device_peak.h"

namespace ablate {
namespace {

struct Peak {
  std::string_view name;  ///< as the driver begins it
  double bf16, fp32;      ///< TFLOP/s; bf16 by tensor cores, without sparsity
};

// From NVIDIA's data sheets. Longer names stand before those they begin with.
constexpr Peak kPeaks[] = {
    {"NVIDIA GH200", 989.5, 67},     {"NVIDIA H200 NVL", 835.5, 60},
    {"NVIDIA H200", 989.5, 67},      {"NVIDIA H100 NVL", 835.5, 60},
    {"NVIDIA H100 PCIe", 756.5, 51}, {"NVIDIA H100 80GB HBM3", 989.5, 67},
    {"NVIDIA A100-", 312, 19.5},     {"NVIDIA A100 80GB PCIe", 312, 19.5},
    {"NVIDIA L40S", 362, 91.6},      {"NVIDIA L4", 121, 30.3},
};

}  // namespace

std::optional<double> device_peak_flops(std::string_view device_name, std::string_view dtype) {
  if (device_name.find(" MIG ") != std::string_view::npos) return {};
  for (const Peak& peak : kPeaks) {
    if (!device_name.starts_with(peak.name)) continue;
    const std::string_view rest = device_name.substr(peak.name.size());
    const bool whole = rest.empty() || rest.front() == ' ' || peak.name.ends_with('-');
    if (!whole) continue;
    if (dtype == "bf16") return 1e12 * peak.bf16;
    if (dtype == "fp32") return 1e12 * peak.fp32;
    return {};
  }
  return {};
}

double model_flops(double macs, BenchKind kind) {
  return (kind == BenchKind::Train ? 3 : 1) * 2 * macs;
}

std::optional<double> model_flops_utilisation(double macs, BenchKind kind, double images_per_s,
                                              std::string_view device_name,
                                              std::string_view dtype) {
  const auto peak = device_peak_flops(device_name, dtype);
  if (!peak) return {};
  return model_flops(macs, kind) * images_per_s / *peak;
}

}  // namespace ablate
