#pragma once

#include "methods/models/edit.h"

namespace ablate {

// Performing the edits of channel groups, for the Surgeon. Each returns whether present arenas,
// buckets and captured graphs are stale afterwards.

bool perform(Model& model, const AttachGates& edit);
bool perform(Model& model, const DetachGates& edit);
bool perform(Model& model, const AttachReweight& edit);
bool perform(Model& model, const FoldReweight& edit);

/// The edit, and how parameters became slices of themselves, by their names.
struct NamedSlice {
  std::string parameter;
  int axis;
  std::vector<std::int64_t> index;
};
std::vector<NamedSlice> cut_channels(Model& model, const KeepChannels& edit);

}  // namespace ablate
