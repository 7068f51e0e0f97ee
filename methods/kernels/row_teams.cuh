#pragma once

#include <cstdint>

#include "methods/kernels/device.cuh"
#include "runner/core/error.h"

namespace ablate::kernels {

// One row of a matrix as the work of a team of threads: part of a warp, a warp, or several warps of
// one block. A thread holds kVectors vectors of kVector elements in registers; vector i begins at
// column (i * threads + lane) * kVector, columns from `width` on are left out.

template <int Lanes, int Vector, int Vectors>
struct RowLayout {
  static constexpr int kLanes = Lanes;  ///< threads of a team within one warp: 16 or 32
  static constexpr int kVector = Vector;
  static constexpr int kVectors = Vectors;
  static constexpr int kElements = Vector * Vectors;  ///< of a thread
};

inline constexpr int kMaxRowWidth = 4096;
inline constexpr int kMaxTeamBlock = 512;  ///< threads
inline constexpr int kMaxTeamWarps = kMaxTeamBlock / 32;

struct RowTeams {
  int threads_log2 = 5;  ///< of a team
  int block = 256;       ///< threads of a block
  int rows = 8;          ///< teams of a block

  __host__ __device__ int threads() const { return 1 << threads_log2; }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) & (threads() - 1); }
  __device__ int team() const { return static_cast<int>(threadIdx.x) >> threads_log2; }
  template <typename Layout>
  __device__ int column(int vector) const {
    return (vector * threads() + lane()) * Layout::kVector;
  }
};

inline RowTeams row_teams(int threads_log2) {
  RowTeams teams;
  teams.threads_log2 = threads_log2;
  teams.block = threads_log2 <= 8 ? 256 : 1 << threads_log2;
  teams.rows = teams.block >> threads_log2;
  return teams;
}

/// Calls visit(layout, teams) with the layout that wastes the least threads on rows of `width`
/// elements of R: 8 or 12 elements a thread where rows keep the alignment of vectors.
template <typename R, typename Visit>
void with_row_layout(std::int64_t width, const Visit& visit) {
  ABLATE_CHECK(width >= 1 && width <= kMaxRowWidth, "width ", width, ": from 1 to ", kMaxRowWidth,
               " are supported");
  using Eight16 = std::conditional_t<sizeof(R) == 2, RowLayout<16, 8, 1>, RowLayout<16, 4, 2>>;
  using Eight32 = std::conditional_t<sizeof(R) == 2, RowLayout<32, 8, 1>, RowLayout<32, 4, 2>>;
  if (width % 8 != 0) {
    int log2 = 5;
    while ((8 << log2) < width) ++log2;
    visit(RowLayout<32, 1, 8>{}, row_teams(log2));
    return;
  }
  int log2 = 4;
  while ((12 << log2) < width) ++log2;
  const bool eight = (8 << log2) >= width;
  if (log2 == 4) {
    eight ? visit(Eight16{}, row_teams(log2)) : visit(RowLayout<16, 4, 3>{}, row_teams(log2));
  } else {
    eight ? visit(Eight32{}, row_teams(log2)) : visit(RowLayout<32, 4, 3>{}, row_teams(log2));
  }
}

/// Sum over the team, the same bits in all its threads. `scratch` is shared memory of one T a warp
/// that nobody has used since the last barrier; only teams of several warps use it, and all threads
/// of their block must come here together.
template <typename Layout>
__device__ __forceinline__ float2 team_sum(float2 value, const RowTeams& teams, float2* scratch) {
  value.x = warp_sum<Layout::kLanes>(value.x);
  value.y = warp_sum<Layout::kLanes>(value.y);
  if (Layout::kLanes < 32 || teams.threads_log2 == 5) return value;
  const int warps = teams.threads() / 32;
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  const float2* mine = scratch + teams.team() * warps;
  value = mine[0];
  for (int warp = 1; warp < warps; ++warp) {
    value.x += mine[warp].x;
    value.y += mine[warp].y;
  }
  return value;
}

template <typename Layout>
__device__ __forceinline__ float team_sum(float value, const RowTeams& teams, float* scratch) {
  value = warp_sum<Layout::kLanes>(value);
  if (Layout::kLanes < 32 || teams.threads_log2 == 5) return value;
  const int warps = teams.threads() / 32;
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  const float* mine = scratch + teams.team() * warps;
  value = mine[0];
  for (int warp = 1; warp < warps; ++warp) value += mine[warp];
  return value;
}

/// Adds the sums of the block's teams in their order and writes them to `to` (width).
template <typename Layout>
__device__ __forceinline__ void write_team_sums(
    const float (&sums)[Layout::kVectors][Layout::kVector], const RowTeams& teams, int width,
    float* scratch, float* to) {
  __syncthreads();  // readers of an earlier use are done
#pragma unroll
  for (int i = 0; i < Layout::kVectors; ++i) {
    const int column = teams.column<Layout>(i);
    if (column < width) store(scratch + teams.team() * width + column, sums[i]);
  }
  __syncthreads();
  for (int column = static_cast<int>(threadIdx.x); column < width;
       column += static_cast<int>(blockDim.x)) {
    float sum = 0.0F;
    for (int team = 0; team < teams.rows; ++team) sum += scratch[team * width + column];
    to[column] = sum;
  }
}

}  // namespace ablate::kernels
