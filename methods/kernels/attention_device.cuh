#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "methods/kernels/attention.h"
#include "methods/kernels/cuda_check.h"
#include "methods/kernels/tile.cuh"
#include "runner/core/error.h"

namespace ablate::kernels {

// What the forward and the backward kernels of attention share. Scores are kept in units of log 2,
// so that the exponential is one instruction: log2 e / sqrt(d) is folded into one factor.

inline constexpr float kLog2E = 1.4426950408889634F;
inline constexpr float kLn2 = 0.6931471805599453F;
inline constexpr int kStreamedRows = 64;  ///< rows of a block that long sequences pass through
inline constexpr int kStreamedWarps = 8;  ///< of 16 rows each
inline constexpr int kStreamedThreads = kStreamedWarps * 32;
inline constexpr int kWarpsPerSm = 16;  ///< resident, at up to 128 registers a thread

/// Tiles of 16 rows that cover the tokens.
__host__ __device__ inline int row_tiles(int tokens) { return (tokens + 15) / 16; }

/// One head of one image in the packed and the unpacked arrays.
template <int D>
struct HeadPlace {
  std::int64_t image;
  std::int64_t head;
  std::int64_t packed;         ///< first element in (B, N, 3, H, d)
  std::int64_t packed_stride;  ///< between tokens
  std::int64_t part;           ///< from q to k and from k to v, and between tokens in (B, N, H, d)
  std::int64_t unpacked;       ///< first element in (B, N, H, d)
  std::int64_t row;            ///< first element in (B, H, N)

  __device__ __forceinline__ HeadPlace(const AttentionShape& shape, std::int64_t index)
      : image(static_cast<std::uint32_t>(index) / static_cast<std::uint32_t>(shape.heads)),
        head(static_cast<std::uint32_t>(index) % static_cast<std::uint32_t>(shape.heads)),
        packed_stride(3 * shape.heads * D),
        part(shape.heads * D),
        row(index * shape.tokens) {
    packed = image * shape.tokens * packed_stride + head * D;
    unpacked = image * shape.tokens * part + head * D;
  }
};

/// Bias of `padded` keys in units of log 2, -infinity where there is none; all threads of the
/// block.
__device__ __forceinline__ void load_key_bias(float* to, const float* from, int valid, int padded) {
  for (int i = static_cast<int>(threadIdx.x); i < padded; i += static_cast<int>(blockDim.x)) {
    to[i] = i < valid ? from[i] * kLog2E : -INFINITY;
  }
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0;
  int value = 0;
  check_cuda(cudaGetDevice(&device));
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

/// Blocks of so much shared memory that one multiprocessor holds; 0 when not even one.
inline int blocks_by_memory(std::size_t bytes) {
  constexpr std::size_t kReserved = 1024;  // per block, by the driver
  if (bytes > static_cast<std::size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin))) {
    return 0;
  }
  const auto all =
      static_cast<std::size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor));
  return static_cast<int>(all / (bytes + kReserved));
}

/// Warps of a block that has `tiles` equal pieces of work, one warp at a time each: the fewest idle
/// ones, counting what a multiprocessor holds; at least `fewest` when there is so much work.
inline int warps_for(int tiles, int blocks, int fewest, int most) {
  int best = std::min(tiles, fewest);
  double best_use = 0.0;
  for (int warps = best; warps <= std::min(tiles, most); ++warps) {
    const int resident = warps * std::max(1, std::min(blocks, kWarpsPerSm / warps));
    const int slots = (tiles + warps - 1) / warps * warps;
    const double use = static_cast<double>(tiles * resident) / slots;
    if (use > best_use + 1e-9) {
      best = warps;
      best_use = use;
    }
  }
  return best;
}

/// Lets the kernel have so much dynamic shared memory, in as many blocks as fit.
template <typename Kernel>
void allow_shared_memory(Kernel* kernel, std::size_t bytes) {
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)));
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared));
}

inline void check_attention(const AttentionShape& shape) {
  ABLATE_CHECK(attention_supported(shape.tokens, shape.head_dim), "attention of ", shape.tokens,
               " tokens with heads of ", shape.head_dim,
               " channels; heads of 32 or 64 channels and 1 to 65535 tokens are supported");
  ABLATE_CHECK(
      shape.batch >= 0 && shape.heads >= 1 && shape.batch * shape.heads <= std::int64_t{0x7fffffff},
      "attention of ", shape.batch, " images with ", shape.heads, " heads");
}

/// log2 e / sqrt(d)
inline float score_factor(int head_dim) {
  return static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(head_dim)));
}

}  // namespace ablate::kernels
