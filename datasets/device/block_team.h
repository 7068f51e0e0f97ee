#pragma once

#include "datasets/device/canvas.h"

#ifdef __CUDACC__

namespace ablate::augment {

/// The threads of a block as a team (canvas.h).
template <int kThreads>
struct Block {
  ABLATE_HOST_DEVICE int rank() const {
#ifdef __CUDA_ARCH__
    return static_cast<int>(threadIdx.x);
#else
    return 0;
#endif
  }
  ABLATE_HOST_DEVICE int size() const { return kThreads; }
  ABLATE_HOST_DEVICE void sync() const {
#ifdef __CUDA_ARCH__
    __syncthreads();
#endif
  }
  ABLATE_HOST_DEVICE void add(int* sum, int value) const {
#ifdef __CUDA_ARCH__
    atomicAdd(sum, value);  // of integers: any order gives the same
#endif
  }
  /// One thread a warp, so that roles run beside each other.
  ABLATE_HOST_DEVICE bool leads(int role) const { return rank() == 32 * role; }
};

/// Room for a T whose members have initial values, which shared variables must not have.
template <typename T>
struct Room {
  alignas(T) unsigned char bytes[sizeof(T)];

  __device__ T& value() { return *reinterpret_cast<T*>(bytes); }
};

}  // namespace ablate::augment

#endif
