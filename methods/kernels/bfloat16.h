#pragma once

#include <bit>
#include <cstdint>

struct CUstream_st;  // cudaStream_t without the CUDA headers

namespace ablate::kernels {

/// Where device work is enqueued.
using Stream = ::CUstream_st*;

/// The upper half of a float, as the hardware and LibTorch store it. Kernels read it as
/// __nv_bfloat16.
struct bfloat16 {
  std::uint16_t bits;
};

inline float to_float(float value) { return value; }
inline float to_float(bfloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

/// Rounds to nearest, ties to even; NaN stays NaN.
template <typename T>
T from_float(float value);
template <>
inline float from_float<float>(float value) {
  return value;
}
template <>
inline bfloat16 from_float<bfloat16>(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {
    return {static_cast<std::uint16_t>((bits >> 16) | 0x40U)};
  }
  return {static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}

}  // namespace ablate::kernels
