#pragma once

#include <cstdint>

#include "runner/torch/torch.h"

namespace ablate {

/// Draws the parameters of a transformer as timm 0.3.2 does, each from its name alone: weights of
/// Linears, tokens, positions and tables of relative positions truncated normal with deviation
/// 0.02; convolutions, biases included, U(+-1/sqrt(fan in)), the framework's default; norms 1 and
/// 0; other biases 0. What focused linear attention adds, `positional_encoding` and `scale`, is 0.
void initialize_transformer(torch::nn::Module& model, std::uint64_t seed);

}  // namespace ablate
