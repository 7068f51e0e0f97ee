#pragma once

#include "methods/models/edit.h"

namespace ablate {

// Performing the edits of layer attention, for the Surgeon. Each returns whether present arenas,
// buckets and captured graphs are stale afterwards.

bool perform(Model& model, const AttachLayerAttention& edit);
bool perform(Model& model, const SkipRetrieval& edit);
bool perform(Model& model, const DeleteSkipped& edit);

}  // namespace ablate
