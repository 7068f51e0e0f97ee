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
  std::string name{};
};

/// All CUDA devices that ablate-train sees, and why it sees none.
struct GpuList {
  std::vector<Gpu> gpus;
  std::string why_none;
};
/// Throws Error when ablate-train does not answer.
GpuList list_gpus(const Workspace& workspace);

/// The GPUs that runs may use under `[launch] device`, as ablate-train sees them: none for "cpu";
/// for "cuda" there must be one. Throws SpecError saying why there is none.
std::vector<Gpu> find_gpus(const std::string& device, const Workspace& workspace);

/// Disjoint groups of as many GPUs as a run has ranks; the rest is left over.
std::vector<Place> gpu_places(const std::vector<Gpu>& gpus, int ranks);

}  // namespace ablate
