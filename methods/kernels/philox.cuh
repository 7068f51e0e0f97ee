#pragma once

#include <cstdint>

#include <cuda_runtime.h>

namespace ablate::kernels {

/// Philox4x32-10, word for word the function philox4x32() of runner/core/random.h.
__device__ inline uint4 philox4x32(uint4 counter, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t low0 = 0xd2511f53U * counter.x;
    const std::uint32_t high0 = __umulhi(0xd2511f53U, counter.x);
    const std::uint32_t low1 = 0xcd9e8d57U * counter.z;
    const std::uint32_t high1 = __umulhi(0xcd9e8d57U, counter.z);
    counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
    key.x += 0x9e3779b9U;
    key.y += 0xbb67ae85U;
  }
  return counter;
}

/// RandomStream::uniform() of one word: [0, 1) with 24 random bits.
__device__ inline float uniform_of_word(std::uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24F;
}

}  // namespace ablate::kernels
