#pragma once

#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

/// Images (batch, 3, height, width) as the input of a convolution with stride `block` and `pad`,
/// whose stride has gone into the channels: squares of block x block pixels of the padded image
/// become one pixel. Out is bfloat16 (batch, out_height, out_width, channels()), zero outside of
/// the image and behind the last channel:
///
///   out[b][y][x][3 (block i + j) + c] = images[b][c][block y + i - pad][block x + j - pad]
///
/// T is float or bfloat16; block is 1 or 2. `packed` is aligned to 16 bytes. Moves
/// 3 sizeof(T) bytes a pixel of the image and 2 channels() a pixel of the output.
template <typename T>
struct PackImages {
  std::int64_t batch = 0, height = 0, width = 0;
  std::int64_t block = 1, pad = 0;
  std::int64_t out_height = 0, out_width = 0;
  const T* images = nullptr;
  bfloat16* packed = nullptr;

  /// The next multiple of 8, which tensor cores want.
  static std::int64_t channels(std::int64_t block) { return (3 * block * block + 7) / 8 * 8; }
};

template <typename T>
void pack_images(const PackImages<T>& arguments, Stream stream);

namespace reference {
template <typename T>
void pack_images(const PackImages<T>& arguments);
}  // namespace reference

}  // namespace ablate::kernels
