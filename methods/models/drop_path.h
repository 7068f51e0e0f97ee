#pragma once

#include <cstdint>
#include <string_view>

#include "methods/models/slots.h"

namespace ablate {

/// Stochastic depth (Huang et al., ECCV 2016) of one branch in training: for each sample of a pass
/// gain / (1 - rate) or, with probability `rate`, 0; (batch, 1, 1) as `options` say. A number is a
/// function of seed, join, step and position in the global batch. Made on the host: captured steps
/// take theirs from ForwardState::join_numbers.
at::Tensor drop_path_scale(std::string_view join, double rate, double gain, std::int64_t batch,
                           const at::TensorOptions& options, const ForwardState& state);

}  // namespace ablate
