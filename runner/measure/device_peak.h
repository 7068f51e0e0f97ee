#pragma once

#include <optional>
#include <string_view>

#include "runner/measure/protocol.h"

namespace ablate {

/// Floating-point operations a second that the device's maker promises for matrix products of that
/// type ("bf16", "fp32") with dense operands; nothing for devices, parts of devices (MIG) and types
/// that are not in the table.
std::optional<double> device_peak_flops(std::string_view device_name, std::string_view dtype);

/// Operations that the model needs for one image, by its multiply-accumulates of a forward pass:
/// two each; a training step needs them three times, for the output and both gradients.
double model_flops(double macs, BenchKind kind);

/// Model FLOPs utilisation (Chowdhery et al., 2022, appendix B): what the images need over what the
/// device could do meanwhile.
std::optional<double> model_flops_utilisation(double macs, BenchKind kind, double images_per_s,
                                              std::string_view device_name, std::string_view dtype);

}  // namespace ablate
