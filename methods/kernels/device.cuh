#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

// Vector access: V neighbouring elements as floats, V one of 1, 4, 8. Addresses are multiples of
// min(16, V * sizeof(T)) bytes; accesses are as wide as that allows (16 bytes at most).

/// Elements of T in one access of full width.
template <typename T>
inline constexpr int kFullVector = 16 / static_cast<int>(sizeof(T));

/// The raw registers of V elements of T: loads can be issued early and unpacked late.
template <int V, typename T>
struct Packed;

template <int V>
struct Packed<V, float> {
  static_assert(V == 1 || V % 4 == 0);
  float values[V];

  __device__ __forceinline__ void load(const float* from) {
    if constexpr (V == 1) {
      values[0] = *from;
    } else {
#pragma unroll
      for (int i = 0; i < V; i += 4) {
        const float4 quad = *reinterpret_cast<const float4*>(from + i);
        values[i] = quad.x;
        values[i + 1] = quad.y;
        values[i + 2] = quad.z;
        values[i + 3] = quad.w;
      }
    }
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] = 0.0F;
  }
  __device__ __forceinline__ void unpack(float (&to)[V]) const {
#pragma unroll
    for (int i = 0; i < V; ++i) to[i] = values[i];
  }
};

template <int V>
struct Packed<V, bfloat16> {
  static_assert(V == 1 || V == 4 || V == 8);
  static constexpr int kWords = (V + 1) / 2;
  std::uint32_t words[kWords];

  __device__ __forceinline__ void load(const bfloat16* from) {
    if constexpr (V == 1) {
      words[0] = from->bits;
    } else if constexpr (V == 4) {
      const uint2 pair = *reinterpret_cast<const uint2*>(from);
      words[0] = pair.x;
      words[1] = pair.y;
    } else {
      const uint4 quad = *reinterpret_cast<const uint4*>(from);
      words[0] = quad.x;
      words[1] = quad.y;
      words[2] = quad.z;
      words[3] = quad.w;
    }
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = 0;
  }
  __device__ __forceinline__ void unpack(float (&to)[V]) const {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const std::uint32_t word = words[i / 2];
      to[i] = __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000U);
    }
  }
};

template <int V, typename T>
__device__ __forceinline__ void load(const T* from, float (&to)[V]) {
  Packed<V, T> packed;
  packed.load(from);
  packed.unpack(to);
}

template <int V>
__device__ __forceinline__ void store(float* to, const float (&from)[V]) {
  if constexpr (V == 1) {
    *to = from[0];
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4) {
      *reinterpret_cast<float4*>(to + i) =
          make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
    }
  }
}

/// Two floats rounded to nearest, the first in the lower half.
__device__ __forceinline__ std::uint32_t pack_bfloat16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

__device__ __forceinline__ bfloat16 round_to_bfloat16(float value) {
  return {static_cast<std::uint16_t>(pack_bfloat16(value, 0.0F) & 0xffffU)};
}

template <int V>
__device__ __forceinline__ void store(bfloat16* to, const float (&from)[V]) {
  if constexpr (V == 1) {
    *to = round_to_bfloat16(from[0]);
  } else if constexpr (V == 4) {
    *reinterpret_cast<uint2*>(to) =
        make_uint2(pack_bfloat16(from[0], from[1]), pack_bfloat16(from[2], from[3]));
  } else {
    static_assert(V == 8);
    *reinterpret_cast<uint4*>(to) =
        make_uint4(pack_bfloat16(from[0], from[1]), pack_bfloat16(from[2], from[3]),
                   pack_bfloat16(from[4], from[5]), pack_bfloat16(from[6], from[7]));
  }
}

/// The value that a store to T followed by a load gives.
template <typename T>
__device__ __forceinline__ float rounded_to(float value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else {
    return __uint_as_float(pack_bfloat16(0.0F, value) & 0xffff0000U);
  }
}

/// Index of the thread's warp, known to be the same in all its lanes.
__device__ __forceinline__ int warp_index() {
  return __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / 32, 0);
}

/// The block's number, counted from the end of the grid. A kernel that reads what a product before
/// it wrote begins with the rows written last, which still lie in the L2 cache, and leaves there
/// those with which the next product begins.
__device__ __forceinline__ unsigned block_from_end() { return gridDim.x - 1 - blockIdx.x; }

// Reductions. The order of additions is a fixed tree; every lane gets the same bits.

/// Over aligned groups of Lanes lanes (a power of two); all 32 lanes of the warp must call it.
template <int Lanes = 32>
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = Lanes / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffU, value, offset);
  }
  return value;
}

template <int Lanes = 32>
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int offset = Lanes / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffU, value, offset));
  }
  return value;
}

/// Over the block of whole warps, at most 32; `scratch` is shared memory of one float a warp. All
/// threads must call it; it may be called again at once with the same scratch.
template <typename Reduce, typename Combine>
__device__ __forceinline__ float block_reduce(float value, float* scratch, const Reduce& reduce,
                                              const Combine& combine) {
  value = reduce(value);
  const unsigned warps = blockDim.x / 32;
  if (warps == 1) return value;
  __syncthreads();  // readers of an earlier call are done
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = scratch[0];
  for (unsigned warp = 1; warp < warps; ++warp) value = combine(value, scratch[warp]);
  return value;
}

__device__ __forceinline__ float block_sum(float value, float* scratch) {
  return block_reduce(
      value, scratch, [](float v) { return warp_sum(v); }, [](float a, float b) { return a + b; });
}

__device__ __forceinline__ float block_max(float value, float* scratch) {
  return block_reduce(
      value, scratch, [](float v) { return warp_max(v); },
      [](float a, float b) { return fmaxf(a, b); });
}

/// Blocks of `size` that cover `count`.
template <typename Count>
__host__ __device__ constexpr Count ceil_div(Count count, Count size) {
  return (count + size - 1) / size;
}

inline bool is_aligned(const void* pointer, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

/// Null pointers count as aligned.
template <typename... Pointers>
bool all_aligned(std::size_t bytes, Pointers... pointers) {
  return (is_aligned(pointers, bytes) && ...);
}

}  // namespace ablate::kernels
