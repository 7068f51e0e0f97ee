#include "methods/kernels/cuda_check.h"
#include "methods/kernels/device.cuh"
#include "methods/kernels/pack_images.h"
#include "runner/core/error.h"

namespace ablate::kernels {
namespace {

constexpr unsigned kPackThreads = 256;

/// One thread a pixel of the output.
template <int kBlock, typename T>
__global__ void __launch_bounds__(kPackThreads) pack_kernel(PackImages<T> a) {
  constexpr int kChannels = (3 * kBlock * kBlock + 7) / 8 * 8;
  const std::int64_t pixels = a.out_height * a.out_width;
  const std::int64_t pixel = static_cast<std::int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
  if (pixel >= pixels) return;
  const std::int64_t image = blockIdx.y;
  const std::int64_t y = pixel / a.out_width * kBlock - a.pad;
  const std::int64_t x = pixel % a.out_width * kBlock - a.pad;
  const T* plane = a.images + image * 3 * a.height * a.width;
  float values[kChannels / 8][8] = {};
#pragma unroll
  for (int part = 0; part < kBlock * kBlock; ++part) {
    const std::int64_t from_y = y + part / kBlock;
    const std::int64_t from_x = x + part % kBlock;
    const bool inside = from_y >= 0 && from_y < a.height && from_x >= 0 && from_x < a.width;
    if (!inside) continue;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      float value[1];
      load(plane + (c * a.height + from_y) * a.width + from_x, value);
      values[(3 * part + c) / 8][(3 * part + c) % 8] = value[0];
    }
  }
  bfloat16* to = a.packed + (image * pixels + pixel) * kChannels;
#pragma unroll
  for (int i = 0; i < kChannels / 8; ++i) store(to + 8 * i, values[i]);
}

}  // namespace

template <typename T>
void pack_images(const PackImages<T>& a, Stream stream) {
  ABLATE_CHECK(a.block == 1 || a.block == 2, "pack_images in blocks of ", a.block,
               ": 1 and 2 are supported");
  ABLATE_CHECK(a.batch <= 65535, "pack_images: up to 65535 images are supported");
  ABLATE_CHECK(is_aligned(a.packed, 16), "pack_images: packed must be aligned to 16 bytes");
  const std::int64_t pixels = a.out_height * a.out_width;
  if (a.batch == 0 || pixels == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div<std::int64_t>(pixels, kPackThreads)),
                  static_cast<unsigned>(a.batch));
  if (a.block == 1) {
    pack_kernel<1><<<grid, kPackThreads, 0, stream>>>(a);
  } else {
    pack_kernel<2><<<grid, kPackThreads, 0, stream>>>(a);
  }
  check_launch();
}

template void pack_images(const PackImages<float>&, Stream);
template void pack_images(const PackImages<bfloat16>&, Stream);

}  // namespace ablate::kernels
