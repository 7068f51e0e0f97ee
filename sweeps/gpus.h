#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sweeps/executor.h"
#include "sweeps/workspace.h"

namespace ablate {

struct Gpu {
  std::string uuid;  ///< names it whatever CUDA_VISIBLE_DEVICES says already
  std::uint64_t bytes = 0;
};

/// The GPUs that runs may use under `[launch] device`, as ablate-train sees them: none for "cpu";
/// for "cuda" there must be one. Throws SpecError saying why there is none.
std::vector<Gpu> find_gpus(const std::string& device, const Workspace& workspace);

/// Disjoint groups of as many GPUs as a run has ranks; the rest is left over.
std::vector<Place> gpu_places(const std::vector<Gpu>& gpus, int ranks);

}  // namespace ablate
