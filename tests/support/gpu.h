#pragma once

#include "runner/torch/torch.h"

namespace ablate::test {

/// Whether LibTorch sees a CUDA device; tests that need one skip aloud without.
inline bool has_gpu() { return at::hasCUDA() && at::detail::getCUDAHooks().getNumGPUs() > 0; }

}  // namespace ablate::test
