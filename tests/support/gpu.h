#pragma once

#include "runner/torch/torch.h"

namespace ablate::test {

/// Whether LibTorch sees a CUDA device; tests that need one skip aloud without.
inline bool has_gpu() { return at::hasCUDA() && at::detail::getCUDAHooks().getNumGPUs() > 0; }

/// Single precision is that, and operations of LibTorch that can repeat their bits do.
inline void be_exact_and_repeatable() {
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

}  // namespace ablate::test
