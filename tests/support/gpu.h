#pragma once

#include "runner/torch/autocast.h"
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

/// While it lives, plain operations take their operands in bfloat16 where torch's autocast does.
class Bfloat16Autocast {
 public:
  explicit Bfloat16Autocast(at::DeviceType device) : device_(device) {
    at::autocast::set_autocast_dtype(device, at::kBFloat16);
    at::autocast::set_autocast_cache_enabled(false);
    at::autocast::set_autocast_enabled(device, true);
  }
  ~Bfloat16Autocast() {
    at::autocast::set_autocast_enabled(device_, false);
    at::autocast::set_autocast_cache_enabled(true);
  }
  Bfloat16Autocast(const Bfloat16Autocast&) = delete;
  Bfloat16Autocast& operator=(const Bfloat16Autocast&) = delete;

 private:
  at::DeviceType device_;
};

}  // namespace ablate::test
