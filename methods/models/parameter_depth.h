#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "methods/models/model.h"

namespace ablate {

/// How many layers lie between each parameter and the head, by name: the exponent of layer-wise
/// learning rates (Bao et al., BEiT, ICLR 2022, and the dense recipes after it). With L blocks a
/// parameter of block i (from 0) has L - i of them above it, all that is registered before the
/// first block L + 1 (patch and position embeddings, class token), all behind the last block none
/// (last norm, heads). What stands between two blocks goes with the later one.
std::map<std::string, std::int64_t> layers_above(Model& model);

}  // namespace ablate
