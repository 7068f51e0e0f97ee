#pragma once

#include "methods/models/model.h"

namespace ablate {

/// Logits of one fixed image with some texture, in evaluation mode and without gradients: for
/// questions about structure (what it costs, how many tokens are left, whether an edit changed
/// anything). Draws no random number, leaves statistics alone and restores the mode.
at::Tensor probe(Model& model, ForwardState& state);

}  // namespace ablate
