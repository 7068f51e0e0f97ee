#pragma once

#include <cfloat>
#include <cmath>
#include <cstddef>

#include "methods/kernels/device.cuh"
#include "methods/kernels/token_match.h"

namespace ablate::kernels {

// The first half of matching: for each member of A its most similar partner in B.

inline constexpr int kMatchThreads = 512;
inline constexpr int kMatchWarps = kMatchThreads / 32;
inline constexpr int kTileRows = 16;  ///< members of A that a warp compares at a time

/// How an image is cut into what fits into shared memory.
struct MatchPlan {
  int a_rows = 0;  ///< vectors of A in memory, a multiple of 16
  int b_rows = 0;  ///< vectors of B in memory, a multiple of 8
  int parts = 1;   ///< warps that share the comparisons of one tile
  int pitch = 0;   ///< floats from one vector to the next: neighbours lie in different banks
  std::size_t bytes = 0;
};

/// The shared memory of match_kernel.
struct MatchMemory {
  float* a_units;      // (a_rows, pitch)
  float* b_units;      // (b_rows, pitch)
  float* part_scores;  // (parts, a_rows)
  int* part_partners;  // (parts, a_rows)
  float* scores;       // (|A|)
  int* partners;       // (|A|)
  int* ranks;          // (|A|)
  int* positions;      // (N)

  __device__ __forceinline__ MatchMemory(float* begin, const TokenMatch& a, const MatchPlan& plan) {
    const int pitch = plan.pitch;
    const int a_count = static_cast<int>(a.tokens + 1) / 2;
    a_units = begin;
    b_units = a_units + plan.a_rows * pitch;
    part_scores = b_units + plan.b_rows * pitch;
    part_partners = reinterpret_cast<int*>(part_scores + plan.parts * plan.a_rows);
    scores = reinterpret_cast<float*>(part_partners + plan.parts * plan.a_rows);
    partners = reinterpret_cast<int*>(scores + a_count);
    ranks = partners + a_count;
    positions = ranks + a_count;
  }
};

/// Keys of the tokens 2 n + parity, n from `first` on, added up over the heads and of length one;
/// a warp takes two tokens at a time, Lanes lanes read one head together.
template <int Lanes>
__device__ __forceinline__ void load_units(const TokenMatch& a, int parity, int first, int count,
                                           float* to, int pitch) {
  constexpr int kBatch = 2;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int chunk = lane % Lanes * 8;
  const bool active = chunk < a.head_dim;
  const int heads = static_cast<int>(a.heads);
  const std::int64_t token_stride = 3 * a.heads * a.head_dim;
  const bfloat16* keys = a.qkv + (blockIdx.x * a.tokens + 2 * first + parity) * token_stride +
                         a.heads * a.head_dim + chunk;
  for (int begin = warp_index() * kBatch; begin < count; begin += kMatchWarps * kBatch) {
    float sums[kBatch][8] = {};
    for (int head = lane / Lanes; head < heads; head += 32 / Lanes) {
      Packed<8, bfloat16> batch[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        batch[i].clear();
        if (active && begin + i < count) {
          batch[i].load(keys + 2 * (begin + i) * token_stride + head * a.head_dim);
        }
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        float values[8];
        batch[i].unpack(values);
#pragma unroll
        for (int j = 0; j < 8; ++j) sums[i][j] += values[j];
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      float squares = 0.0F;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int mask = Lanes; mask < 32; mask *= 2) {
          sums[i][j] += __shfl_xor_sync(0xffffffffU, sums[i][j], mask);
        }
        squares = fmaf(sums[i][j], sums[i][j], squares);
      }
      squares = warp_sum<Lanes>(squares);
      // The bound only keeps a zero key from becoming NaN.
      const float scale = 1.0F / fmaxf(sqrtf(squares), 1e-12F * static_cast<float>(heads));
#pragma unroll
      for (int j = 0; j < 8; ++j) sums[i][j] *= scale;
      if (lane < Lanes && active && begin + i < count) {
        store(to + (begin + i) * pitch + chunk, sums[i]);
      }
    }
  }
}

/// A lane's best partner of four members of A.
struct Candidates {
  float scores[4] = {-FLT_MAX, -FLT_MAX, -FLT_MAX, -FLT_MAX};
  int partners[4];

  __device__ __forceinline__ explicit Candidates(int none) {
#pragma unroll
    for (int& partner : partners) partner = none;
  }
  __device__ __forceinline__ static bool better(float score, int partner, float than_score,
                                                int than_partner) {
    return score > than_score || (score == than_score && partner < than_partner);
  }
};

/// Compares four members of A (rows 4 apart) with Rows members of B (rows 8 apart), of which those
/// from `allowed` to below `end` count; `index` is that of the first one.
template <int Rows>
__device__ __forceinline__ void compare(const float* a_rows, const float* b_rows, int pitch,
                                        int dim, int index, int allowed, int end,
                                        Candidates& best) {
  float sums[4][Rows] = {};
#pragma unroll 2
  for (int k = 0; k < dim; k += 4) {
    float4 x[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = *reinterpret_cast<const float4*>(a_rows + i * 4 * pitch + k);
    }
#pragma unroll
    for (int j = 0; j < Rows; ++j) {
      const float4 y = *reinterpret_cast<const float4*>(b_rows + j * 8 * pitch + k);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[i][j] = fmaf(x[i].x, y.x, sums[i][j]);
        sums[i][j] = fmaf(x[i].y, y.y, sums[i][j]);
        sums[i][j] = fmaf(x[i].z, y.z, sums[i][j]);
        sums[i][j] = fmaf(x[i].w, y.w, sums[i][j]);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < Rows; ++j) {
    const int partner = index + 8 * j;
    if (partner < allowed || partner >= end) continue;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (sums[i][j] > best.scores[i]) {
        best.scores[i] = sums[i][j];
        best.partners[i] = partner;
      }
    }
  }
}

/// Best partners of the members of A in memory among those of B in memory: part_scores and
/// part_partners. `b_first` is the index in B of the first one.
__device__ inline void compare_all(const MatchMemory& memory, const MatchPlan& plan, int pitch,
                                   int dim, int a_count, int b_first, int b_count, int allowed) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int tiles = (a_count + kTileRows - 1) / kTileRows;
  const int part_rows = ((b_count + 7) / 8 + plan.parts - 1) / plan.parts * 8;
  for (int task = warp_index(); task < tiles * plan.parts; task += kMatchWarps) {
    const int part = task / tiles;
    const int row = task % tiles * kTileRows + lane / 8;
    const float* a_rows = memory.a_units + row * pitch;
    const float* b_rows = memory.b_units + lane % 8 * pitch;
    const int end = min((part + 1) * part_rows, b_count);
    Candidates best(allowed);
    int j = part * part_rows;
    for (; j + 24 < end; j += 32) {
      compare<4>(a_rows, b_rows + j * pitch, pitch, dim, b_first + j + lane % 8, allowed,
                 b_first + end, best);
    }
    for (; j < end; j += 8) {
      compare<1>(a_rows, b_rows + j * pitch, pitch, dim, b_first + j + lane % 8, allowed,
                 b_first + end, best);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int mask = 1; mask < 8; mask *= 2) {
        const float score = __shfl_xor_sync(0xffffffffU, best.scores[i], mask);
        const int partner = __shfl_xor_sync(0xffffffffU, best.partners[i], mask);
        if (Candidates::better(score, partner, best.scores[i], best.partners[i])) {
          best.scores[i] = score;
          best.partners[i] = partner;
        }
      }
      if (lane % 8 == 0) {
        memory.part_scores[part * plan.a_rows + row + 4 * i] = best.scores[i];
        memory.part_partners[part * plan.a_rows + row + 4 * i] = best.partners[i];
      }
    }
  }
}

/// Best partners of all members of A: scores and partners.
template <int Lanes>
__device__ __forceinline__ void find_partners(const TokenMatch& a, const MatchPlan& plan,
                                              const MatchMemory& memory) {
  const int pitch = plan.pitch;
  const int a_count = static_cast<int>(a.tokens + 1) / 2;
  const int b_count = static_cast<int>(a.tokens) / 2;
  const int allowed = a.protected_tokens == 2 ? 1 : 0;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < a_count; i += kMatchThreads) {
    memory.scores[i] = -FLT_MAX;
    memory.partners[i] = allowed;
  }
  for (int a_first = 0; a_first < a_count; a_first += plan.a_rows) {
    const int a_here = min(plan.a_rows, a_count - a_first);
    for (int b_first = 0; b_first < b_count; b_first += plan.b_rows) {
      const int b_here = min(plan.b_rows, b_count - b_first);
      if (b_first == 0) load_units<Lanes>(a, 0, a_first, a_here, memory.a_units, pitch);
      if (a_first == 0 || b_count > plan.b_rows) {
        load_units<Lanes>(a, 1, b_first, b_here, memory.b_units, pitch);
      }
      __syncthreads();
      compare_all(memory, plan, pitch, a.head_dim, a_here, b_first, b_here, allowed);
      __syncthreads();
      for (int i = thread; i < a_here; i += kMatchThreads) {
        float& score = memory.scores[a_first + i];
        int& partner = memory.partners[a_first + i];
        for (int part = 0; part < plan.parts; ++part) {
          const float of_part = memory.part_scores[part * plan.a_rows + i];
          const int from_part = memory.part_partners[part * plan.a_rows + i];
          if (Candidates::better(of_part, from_part, score, partner)) {
            score = of_part;
            partner = from_part;
          }
        }
      }
    }
  }
  __syncthreads();
  if (thread == 0 && a.protected_tokens >= 1) memory.scores[0] = -INFINITY;
  __syncthreads();
}

}  // namespace ablate::kernels
