#include "methods/kernels/pack_images.h"

#include <algorithm>

namespace ablate::kernels::reference {
namespace {

/// The squares of one row of the output.
template <typename T>
void pack_row(const PackImages<T>& a, std::int64_t image, std::int64_t row) {
  const std::int64_t channels = PackImages<T>::channels(a.block);
  bfloat16* out = a.packed + (image * a.out_height + row) * a.out_width * channels;
  std::fill_n(out, a.out_width * channels, bfloat16{0});
  for (std::int64_t column = 0; column < a.out_width; ++column, out += channels) {
    for (std::int64_t part = 0; part < a.block * a.block; ++part) {
      const std::int64_t y = a.block * row + part / a.block - a.pad;
      const std::int64_t x = a.block * column + part % a.block - a.pad;
      if (y < 0 || y >= a.height || x < 0 || x >= a.width) continue;
      for (std::int64_t c = 0; c < 3; ++c) {
        const T value = a.images[((image * 3 + c) * a.height + y) * a.width + x];
        out[3 * part + c] = from_float<bfloat16>(to_float(value));
      }
    }
  }
}

}  // namespace

template <typename T>
void pack_images(const PackImages<T>& a) {
  for (std::int64_t image = 0; image < a.batch; ++image) {
    for (std::int64_t row = 0; row < a.out_height; ++row) pack_row(a, image, row);
  }
}

template void pack_images(const PackImages<float>&);
template void pack_images(const PackImages<bfloat16>&);

}  // namespace ablate::kernels::reference
