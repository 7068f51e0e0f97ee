#pragma once

#include "methods/kernels/tensor_core.cuh"

namespace ablate::kernels {

// Tiles of 16 rows of D bfloat16, D 32 or 64: in shared memory as operands, in registers as
// fragments.

template <int D>
struct Tile {
  static_assert(D == 32 || D == 64);
  static constexpr int kSteps = D / 16;  ///< products over the D columns
  static constexpr int kGroups = D / 8;  ///< groups of eight columns
  static constexpr int kChunks = D / 8;  ///< pieces of 16 bytes of a row
  static constexpr int kRowBytes = D * 2;
  static constexpr int kBytes = 16 * kRowBytes;

  using Operand = std::uint32_t[kSteps][4];  ///< 16 x D, left factor
  using Sums = float[kGroups][4];            ///< 16 x D

  /// Byte of a chunk of rows in shared memory that begin at a multiple of 128. The swizzle puts
  /// the same chunk of eight neighbouring rows into different banks.
  __device__ __forceinline__ static std::uint32_t offset(int row, int chunk) {
    const int turned = D == 64 ? chunk ^ (row & 7) : chunk ^ ((row >> 1) & 3);
    return static_cast<std::uint32_t>(row * kRowBytes + turned * 16);
  }
  /// What a lane adds to the address of 16 rows in the loads below: as rows, or as columns.
  __device__ __forceinline__ static std::uint32_t row_lane() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return offset((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
  }
  __device__ __forceinline__ static std::uint32_t column_lane() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return offset(lane & 15, lane >> 4);
  }
};

/// Starts to copy `padded` rows, of which the first `valid` exist and the others become zero; all
/// threads of the block, the i-th copy of a thread is chunk threadIdx.x + i * blockDim.x. The same
/// for Parts arrays, which lie `part` elements apart and go to shared memory one behind the other.
template <int D, int Parts = 1>
__device__ __forceinline__ void start_row_copies(std::uint32_t to, const bfloat16* from,
                                                 std::int64_t stride, int valid, int padded,
                                                 std::int64_t part = 0) {
  const int chunk = static_cast<int>(threadIdx.x % Tile<D>::kChunks);
  const int step = static_cast<int>(blockDim.x / Tile<D>::kChunks);
  int row = static_cast<int>(threadIdx.x / Tile<D>::kChunks);
  from += row * stride + chunk * 8;
  for (; row < padded; row += step) {
    const std::uint32_t place = to + Tile<D>::offset(row, chunk);
#pragma unroll
    for (int i = 0; i < Parts; ++i) {
      start_copy16(place + i * padded * Tile<D>::kRowBytes, from + i * part, row < valid);
    }
    from += step * stride;
  }
}

/// Left factor from 16 rows in shared memory; `rows` includes column_lane().
template <int D>
__device__ __forceinline__ void load_operand(typename Tile<D>::Operand& to, std::uint32_t rows) {
#pragma unroll
  for (int step = 0; step < Tile<D>::kSteps; ++step) load_matrices(to[step], rows ^ (step * 32));
}

/// sums (16 x 16) += left (16 x D) * rows (16 x D) transposed. The rows lie `distance` behind
/// `rows`, which includes row_lane(): two arrays of rows share the arithmetic of addresses so.
template <int D>
__device__ __forceinline__ void multiply_rows(float (&sums)[2][4],
                                              const typename Tile<D>::Operand& left,
                                              std::uint32_t rows, std::uint32_t distance = 0) {
#pragma unroll
  for (int step = 0; step < Tile<D>::kSteps; ++step) {
    std::uint32_t right[4];
    load_matrices(right, (rows ^ (step * 32)) + distance);
    multiply_add(sums[0], left[step], right[0], right[1]);
    multiply_add(sums[1], left[step], right[2], right[3]);
  }
}

/// sums (16 x D) += left (16 x 16) * rows (16 x D). The same with column_lane().
template <int D>
__device__ __forceinline__ void multiply_columns(typename Tile<D>::Sums& sums,
                                                 const std::uint32_t (&left)[4], std::uint32_t rows,
                                                 std::uint32_t distance = 0) {
#pragma unroll
  for (int pair = 0; pair < Tile<D>::kGroups / 2; ++pair) {
    std::uint32_t right[4];
    load_matrices_transposed(right, (rows ^ (pair * 32)) + distance);
    multiply_add(sums[2 * pair], left, right[0], right[1]);
    multiply_add(sums[2 * pair + 1], left, right[2], right[3]);
  }
}

/// A 16 x 16 result as left factor of the next product.
__device__ __forceinline__ void to_operand(std::uint32_t (&to)[4], const float (&sums)[2][4]) {
  to[0] = pack_bfloat16(sums[0][0], sums[0][1]);
  to[1] = pack_bfloat16(sums[0][2], sums[0][3]);
  to[2] = pack_bfloat16(sums[1][0], sums[1][1]);
  to[3] = pack_bfloat16(sums[1][2], sums[1][3]);
}

/// Word i of lane j of a quad becomes word j of lane i.
__device__ __forceinline__ void transpose_quad(std::uint32_t (&words)[4]) {
  const bool odd = threadIdx.x & 1;
  const bool high = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t got = __shfl_xor_sync(0xffffffffU, odd ? words[i] : words[i + 1], 1);
    words[i] = odd ? got : words[i];
    words[i + 1] = odd ? words[i + 1] : got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t got = __shfl_xor_sync(0xffffffffU, high ? words[i] : words[i + 2], 2);
    words[i] = high ? got : words[i];
    words[i + 2] = high ? words[i + 2] : got;
  }
}

/// The raw words of 16 rows in device memory on their way to a left factor: 16 bytes a load.
template <int D>
struct PendingOperand {
  uint4 chunks[2][D / 32];  ///< of rows l / 4 and that + 8: chunks l % 4 and that + 4

  /// Rows from `valid` on (at most 16) become zero and are not read.
  __device__ __forceinline__ void start(const bfloat16* rows, std::int64_t stride, int valid) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
#pragma unroll
      for (int i = 0; i < D / 32; ++i) {
        chunks[half][i] = make_uint4(0, 0, 0, 0);
        if (row < valid) {
          chunks[half][i] =
              *reinterpret_cast<const uint4*>(rows + row * stride + (lane % 4 + 4 * i) * 8);
        }
      }
    }
  }
  __device__ __forceinline__ void finish(typename Tile<D>::Operand& to) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < D / 32; ++i) {
        const uint4 chunk = chunks[half][i];
        std::uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
        transpose_quad(words);
        to[2 * i][half] = words[0];
        to[2 * i][2 + half] = words[1];
        to[2 * i + 1][half] = words[2];
        to[2 * i + 1][2 + half] = words[3];
      }
    }
  }
};

/// Writes the first `valid` rows of sums * (factors of rows l / 4 and that + 8), rounded; 16 bytes
/// a store. All lanes must call it.
template <int D>
__device__ __forceinline__ void store_rows(bfloat16* to, std::int64_t stride, int valid,
                                           const typename Tile<D>::Sums& sums, float factor0,
                                           float factor1) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
    const float factor = half == 0 ? factor0 : factor1;
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
      std::uint32_t words[4];
#pragma unroll
      for (int group = 0; group < 4; ++group) {
        const float(&values)[4] = sums[4 * i + group];
        words[group] = pack_bfloat16(values[2 * half] * factor, values[2 * half + 1] * factor);
      }
      transpose_quad(words);
      if (row < valid) {
        *reinterpret_cast<uint4*>(to + row * stride + (lane % 4 + 4 * i) * 8) =
            make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }
}

/// Sums over rows of 16 x D tiles. Lane l holds D / 32 columns, the first one at column().
template <int D>
struct ColumnTotals {
  static constexpr int kMine = D / 32;
  float totals[kMine] = {};

  /// Adds factor * the first `valid` rows.
  __device__ __forceinline__ void add(const typename Tile<D>::Sums& sums, float factor, int valid) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const bool low = lane / 4 < valid;
    const bool high = lane / 4 + 8 < valid;
    float values[D / 4];
#pragma unroll
    for (int group = 0; group < Tile<D>::kGroups; ++group) {
      values[2 * group] = (low ? sums[group][0] : 0.0F) + (high ? sums[group][2] : 0.0F);
      values[2 * group + 1] = (low ? sums[group][1] : 0.0F) + (high ? sums[group][3] : 0.0F);
    }
    halve<D / 8, 16>(values);
    halve<D / 16, 8>(values);
    halve<D / 32, 4>(values);
#pragma unroll
    for (int i = 0; i < kMine; ++i) totals[i] += factor * values[i];
  }
  /// Adds the lane that differs in bit Mask; of the columns, a lane goes on with Kept.
  template <int Kept, int Mask>
  __device__ __forceinline__ static void halve(float (&values)[D / 4]) {
    const bool upper = threadIdx.x & Mask;
#pragma unroll
    for (int i = 0; i < Kept; ++i) {
      const float sent = upper ? values[i] : values[i + Kept];
      values[i] = (upper ? values[i + Kept] : values[i]) + __shfl_xor_sync(0xffffffffU, sent, Mask);
    }
  }
  __device__ __forceinline__ static int column() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int first = (lane / 16 * 4 + lane / 8 % 2 * 2 + lane / 4 % 2) * kMine;
    return first / 2 * 8 + lane % 4 * 2 + first % 2;
  }
};

}  // namespace ablate::kernels
