#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ablate {

/// The source of an affine transform.
struct AffineRow {
  const std::uint8_t* pixels;  ///< of the source; one byte behind the last must be readable
  int width, height;           ///< of the source and the output
  std::array<double, 6> matrix;
  std::array<std::uint8_t, 3> fill;
};

/// Fraction bits of fixed-point filter weights.
inline constexpr int kTapBits = 22;

/// Filter taps of a row of RGB pixels: pixel o of the output is the weighted sum of the 2 * pairs
/// source pixels from first[o] on. Those behind the end of the row must have weight 0.
struct RowTaps {
  int size;   ///< output pixels
  int pairs;  ///< the same for all of them, so that the processor can foresee the loop's end
  const int* first;
  const std::int32_t* weights;  ///< each four times, so that a weight fits a pixel's vector
};

/// The hot loops of image transforms: bytes in, bytes out, the same bits on every machine.
struct ImageKernels {
  /// A row of `width` RGB pixels resampled. One byte behind `source` must be readable; `wide` is
  /// zeros,
  /// 4 * (width + 2 * pairs) of them, of which those behind the row stay zeros.
  void (*resample_row)(const std::uint8_t* source, int width, const RowTaps& taps,
                       std::int32_t* wide, std::uint8_t* out);
  /// The weighted sum of `count` rows of `stride` bytes that follow each other.
  void (*combine_rows)(const std::uint8_t* rows, std::size_t stride, const std::int32_t* weights,
                       int count, std::uint8_t* out);
  /// Row `y` of a bicubic affine transform (affine.h).
  void (*affine_row)(const AffineRow& source, int y, std::uint8_t* out);
  /// trunc(clip(d + factor (v - d), 0, 255)) in single precision; `out` may be `values`.
  void (*blend)(const std::uint8_t* degenerate, const std::uint8_t* values, std::size_t size,
                float factor, std::uint8_t* out);
  /// 3x3 smoothing (weights 1, 5 in the middle, over 13) of `size` bytes of RGB rows, from the
  /// second pixel on.
  void (*smooth)(const std::uint8_t* above, const std::uint8_t* at, const std::uint8_t* below,
                 std::size_t size, std::uint8_t* out);
};

/// Those compiled for the processor at hand.
const ImageKernels& image_kernels();

/// Those every processor of the platform runs; the others must equal them bit for bit.
const ImageKernels& baseline_kernels();

}  // namespace ablate
