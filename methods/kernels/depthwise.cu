#include "methods/kernels/column_reduction.cuh"
#include "methods/kernels/depthwise.h"

namespace ablate::kernels {
namespace {

constexpr int kDepthwiseThreads = 256;
constexpr int kTileChannels = 32;  // of a block: 64 bytes of a place
constexpr int kVectors = kTileChannels / 8;

/// The block's channels.
__device__ __forceinline__ int first_channel() {
  return static_cast<int>(blockIdx.y) * kTileChannels;
}

/// Kernels of the block's channels, (taps, kTileChannels), and behind them their biases. Zeros for
/// channels that there are not.
template <int Side>
__device__ __forceinline__ void load_kernels(const Depthwise& a, float* shared) {
  constexpr int kTaps = Side * Side;
  for (int i = static_cast<int>(threadIdx.x); i < (kTaps + 1) * kTileChannels;
       i += kDepthwiseThreads) {
    const int tap = i / kTileChannels;
    const int channel = first_channel() + i % kTileChannels;
    float value = 0.0F;
    if (channel < a.shape.channels) {
      const int kernel = channel % static_cast<int>(a.shape.kernels);
      if (tap == kTaps) {
        value = a.bias != nullptr ? a.bias[kernel] : 0.0F;
      } else {
        value = a.kernel[kernel * kTaps + (a.flipped ? kTaps - 1 - tap : tap)];
      }
    }
    shared[i] = value;
  }
  __syncthreads();
}

/// A thread computes 8 channels of kStrip neighbouring places of a row.
constexpr int kStrip = 4;

struct Strip {
  std::int64_t image;
  int y, x;
};

/// The sums of one row under the kernel.
template <int Side>
__device__ __forceinline__ void add_row(const bfloat16* row, std::int64_t stride, int x, int width,
                                        const float* weights, float (&sums)[kStrip][8]) {
  constexpr int kReach = Side / 2;
  float taps[Side][8];
#pragma unroll
  for (int tap = 0; tap < Side; ++tap) load(weights + tap * kTileChannels, taps[tap]);
#pragma unroll
  for (int i = 0; i < kStrip + 2 * kReach; ++i) {
    const int column = x + i - kReach;
    if (column < 0 || column >= width) continue;
    float values[8];
    load(row + column * stride, values);
#pragma unroll
    for (int s = 0; s < kStrip; ++s) {
      const int tap = i - s;
      if (tap < 0 || tap >= Side) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j) sums[s][j] = fmaf(taps[tap][j], values[j], sums[s][j]);
    }
  }
}

template <int Side>
__global__ void __launch_bounds__(kDepthwiseThreads, 2) depthwise_kernel(Depthwise a) {
  __shared__ __align__(16) float weights[(Side * Side + 1) * kTileChannels];
  load_kernels<Side>(a, weights);
  const int vector = static_cast<int>(threadIdx.x) % kVectors;
  const int channel = first_channel() + 8 * vector;
  if (channel >= a.shape.channels) return;
  const int width = static_cast<int>(a.shape.width);
  const int height = static_cast<int>(a.shape.height);
  const int strips = (width + kStrip - 1) / kStrip;
  const std::int64_t index =
      static_cast<std::int64_t>(blockIdx.x) * (kDepthwiseThreads / kVectors) +
      static_cast<int>(threadIdx.x) / kVectors;
  if (index >= a.shape.batch * height * strips) return;
  const Strip strip{index / (static_cast<std::int64_t>(height) * strips),
                    static_cast<int>(index / strips % height),
                    static_cast<int>(index % strips) * kStrip};
  const float* mine = weights + 8 * vector;
  float sums[kStrip][8];
#pragma unroll
  for (int s = 0; s < kStrip; ++s) load(mine + Side * Side * kTileChannels, sums[s]);
  const bfloat16* image = a.x.data + strip.image * a.x.image + channel;
#pragma unroll
  for (int i = 0; i < Side; ++i) {
    const int y = strip.y + i - Side / 2;
    if (y < 0 || y >= height) continue;
    add_row<Side>(image + static_cast<std::int64_t>(y) * width * a.x.stride, a.x.stride, strip.x,
                  width, mine + i * Side * kTileChannels, sums);
  }
  const std::int64_t first = static_cast<std::int64_t>(strip.y) * width + strip.x;
#pragma unroll
  for (int s = 0; s < kStrip; ++s) {
    if (strip.x + s >= width) break;
    const std::int64_t place = first + s;
    if (a.base.data != nullptr) {
      float base[8];
      load(a.base.data + strip.image * a.base.image + place * a.base.stride + channel, base);
#pragma unroll
      for (int j = 0; j < 8; ++j) sums[s][j] += base[j];
    }
    store(a.y.data + strip.image * a.y.image + place * a.y.stride + channel, sums[s]);
  }
}

// The gradient of kernels. A block takes some images and 32 channels; a thread two channels and
// every 16th row, along which it carries the columns under the kernel in registers.

constexpr int kPairs = kTileChannels / 2;
constexpr int kRowParts = kDepthwiseThreads / kPairs;

__device__ __forceinline__ float2 load_pair(const bfloat16* from) {
  const std::uint32_t word = *reinterpret_cast<const std::uint32_t*>(from);
  return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000U));
}

template <int Side>
struct TapSums {
  float2 kernel[Side][Side] = {};
  float2 bias = {};
};

/// The rows under the kernel at row y of an image, for two channels.
template <int Side>
struct RowsUnder {
  const bfloat16* image;  ///< of x, at the channels
  std::int64_t stride;
  int y, height, width;

  __device__ __forceinline__ void load_column(int column, float2 (&window)[Side][Side],
                                              int slot) const {
#pragma unroll
    for (int i = 0; i < Side; ++i) {
      const int row = y + i - Side / 2;
      const bool inside = column >= 0 && column < width && row >= 0 && row < height;
      window[i][slot] =
          inside ? load_pair(image + (static_cast<std::int64_t>(row) * width + column) * stride)
                 : make_float2(0.0F, 0.0F);
    }
  }
};

/// Adds a row of gradients. Column x + j - reach of x lies in slot (x + j) % Side.
template <int Side>
__device__ __forceinline__ void add_gradient_row(const RowsUnder<Side>& rows, const bfloat16* dy,
                                                 std::int64_t dy_stride, TapSums<Side>& sums) {
  constexpr int kReach = Side / 2;
  float2 window[Side][Side];
#pragma unroll
  for (int j = 0; j < Side - 1; ++j) rows.load_column(j - kReach, window, j);
  for (int first = 0; first < rows.width; first += Side) {
#pragma unroll
    for (int u = 0; u < Side; ++u) {
      const int x = first + u;
      if (x >= rows.width) break;
      rows.load_column(x + kReach, window, (u + Side - 1) % Side);
      const float2 gradient = load_pair(dy + x * dy_stride);
      sums.bias.x += gradient.x;
      sums.bias.y += gradient.y;
#pragma unroll
      for (int i = 0; i < Side; ++i) {
#pragma unroll
        for (int j = 0; j < Side; ++j) {
          const float2 value = window[i][(u + j) % Side];
          sums.kernel[i][j].x = fmaf(gradient.x, value.x, sums.kernel[i][j].x);
          sums.kernel[i][j].y = fmaf(gradient.y, value.y, sums.kernel[i][j].y);
        }
      }
    }
  }
}

/// Images of a slice, one behind the other.
struct ImageSlices {
  int slices;
  std::int64_t images;
};

/// Row blockIdx.x of `partials` (slices, taps + 1, channels) gets the block's sums.
template <int Side>
__global__ void __launch_bounds__(kDepthwiseThreads, 2)
    kernel_gradient_kernel(DepthwiseKernelGradient a, ImageSlices slices, float* partials) {
  constexpr int kTaps = Side * Side;
  __shared__ float2 parts[kRowParts][kPairs];
  const int pair = static_cast<int>(threadIdx.x) % kPairs;
  const int part = static_cast<int>(threadIdx.x) / kPairs;
  const int channel = first_channel() + 2 * pair;
  const bool active = channel < a.shape.channels;
  const int height = static_cast<int>(a.shape.height);
  const int width = static_cast<int>(a.shape.width);
  const std::int64_t first = blockIdx.x * slices.images;
  const std::int64_t left = a.shape.batch - first;
  const std::int64_t rows = (left < slices.images ? left : slices.images) * height;
  TapSums<Side> sums;
  for (std::int64_t row = part; active && row < rows; row += kRowParts) {
    const std::int64_t image = first + row / height;
    const int y = static_cast<int>(row % height);
    const RowsUnder<Side> under{a.x.data + image * a.x.image + channel, a.x.stride, y, height,
                                width};
    const bfloat16* dy = a.dy.data + image * a.dy.image +
                         static_cast<std::int64_t>(y) * width * a.dy.stride + channel;
    add_gradient_row<Side>(under, dy, a.dy.stride, sums);
  }
#pragma unroll
  for (int tap = 0; tap <= kTaps; ++tap) {
    parts[part][pair] = tap == kTaps ? sums.bias : sums.kernel[tap / Side % Side][tap % Side];
    __syncthreads();
    if (part == 0 && active) {
      float2 total = make_float2(0.0F, 0.0F);
      for (int p = 0; p < kRowParts; ++p) {
        total.x += parts[p][pair].x;
        total.y += parts[p][pair].y;
      }
      const std::int64_t at =
          (static_cast<std::int64_t>(blockIdx.x) * (kTaps + 1) + tap) * a.shape.channels + channel;
      *reinterpret_cast<float2*>(partials + at) = total;
    }
    __syncthreads();
  }
}

/// Adds `totals` (taps + 1, channels) of the channels that share a kernel; a thread a tap of one.
__global__ void share_kernel(DepthwiseKernelGradient a, const float* totals) {
  const std::int64_t taps = a.shape.side * a.shape.side;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= a.shape.kernels * (taps + 1)) return;
  const std::int64_t kernel = index % a.shape.kernels, tap = index / a.shape.kernels;
  float sum = 0.0F;
  for (std::int64_t c = kernel; c < a.shape.channels; c += a.shape.kernels) {
    sum += totals[tap * a.shape.channels + c];
  }
  if (tap < taps) {
    a.d_kernel[kernel * taps + tap] += sum;
  } else if (a.d_bias != nullptr) {
    a.d_bias[kernel] += sum;
  }
}

template <typename T>
bool is_regular(const TokenMap<T>& map) {
  return map.stride % 8 == 0 && map.image % 8 == 0 && is_aligned(map.data, 16);
}

void check_shape(const DepthwiseShape& shape) {
  ABLATE_CHECK(shape.side == 3 || shape.side == 5, "depthwise convolution of side ", shape.side,
               ": 3 and 5 are supported");
  ABLATE_CHECK(shape.channels % 8 == 0 && shape.kernels >= 8 && shape.kernels % 8 == 0 &&
                   shape.channels % shape.kernels == 0,
               "depthwise convolution of ", shape.channels, " channels with ", shape.kernels,
               " kernels: multiples of 8 that divide");
  ABLATE_CHECK(shape.batch * shape.height * shape.width < (std::int64_t{1} << 31),
               "depthwise convolution of ", shape.batch, " maps of ", shape.height, " x ",
               shape.width);
}

unsigned tiles_of(const DepthwiseShape& shape) {
  return static_cast<unsigned>(ceil_div<std::int64_t>(shape.channels, kTileChannels));
}

/// As many blocks as are resident, if there are so many images.
ImageSlices slices_of(const DepthwiseShape& shape) {
  const std::int64_t wanted =
      std::max<std::int64_t>(2 * multiprocessor_count() / std::int64_t{tiles_of(shape)}, 1);
  const std::int64_t images = ceil_div(std::max<std::int64_t>(shape.batch, 1), wanted);
  return {static_cast<int>(ceil_div(std::max<std::int64_t>(shape.batch, 1), images)), images};
}

std::int64_t sums_of(const DepthwiseShape& shape) { return (shape.taps() + 1) * shape.channels; }

}  // namespace

void depthwise(const Depthwise& a, Stream stream) {
  check_shape(a.shape);
  ABLATE_CHECK(is_regular(a.x) && is_regular(a.y) && (a.base.data == nullptr || is_regular(a.base)),
               "depthwise: maps must be aligned to 16 bytes, strides multiples of 8");
  const std::int64_t strips =
      a.shape.batch * a.shape.height * ceil_div<std::int64_t>(a.shape.width, kStrip);
  if (strips == 0 || a.shape.channels == 0) return;
  const std::int64_t blocks = ceil_div<std::int64_t>(strips, kDepthwiseThreads / kVectors);
  const dim3 grid(static_cast<unsigned>(blocks), tiles_of(a.shape));
  if (a.shape.side == 5) {
    depthwise_kernel<5><<<grid, kDepthwiseThreads, 0, stream>>>(a);
  } else {
    depthwise_kernel<3><<<grid, kDepthwiseThreads, 0, stream>>>(a);
  }
  check_launch();
}

std::size_t depthwise_kernel_gradient_workspace_bytes(const DepthwiseShape& shape) {
  const std::int64_t rows = slices_of(shape).slices + 1;
  return static_cast<std::size_t>(rows * sums_of(shape)) * sizeof(float);
}

void depthwise_kernel_gradient(const DepthwiseKernelGradient& a, void* workspace, Stream stream) {
  check_shape(a.shape);
  ABLATE_CHECK(is_regular(a.x) && is_regular(a.dy),
               "depthwise: maps must be aligned to 16 bytes, strides multiples of 8");
  if (a.shape.batch == 0 || a.shape.channels == 0) return;
  const ImageSlices slices = slices_of(a.shape);
  auto* totals = static_cast<float*>(workspace);
  float* partials = totals + sums_of(a.shape);
  const dim3 grid(static_cast<unsigned>(slices.slices), tiles_of(a.shape));
  if (a.shape.side == 5) {
    kernel_gradient_kernel<5><<<grid, kDepthwiseThreads, 0, stream>>>(a, slices, partials);
  } else {
    kernel_gradient_kernel<3><<<grid, kDepthwiseThreads, 0, stream>>>(a, slices, partials);
  }
  check_launch();
  const auto bytes = static_cast<std::size_t>(sums_of(a.shape)) * sizeof(float);
  check_cuda(cudaMemsetAsync(totals, 0, bytes, stream));
  finish_column_sums({.partials = partials,
                      .slices = slices.slices,
                      .width = sums_of(a.shape),
                      .outputs = {totals, nullptr, nullptr}},
                     stream);
  const std::int64_t threads = a.shape.kernels * (a.shape.taps() + 1);
  share_kernel<<<static_cast<unsigned>(ceil_div<std::int64_t>(threads, kDepthwiseThreads)),
                 kDepthwiseThreads, 0, stream>>>(a, totals);
  check_launch();
}

}  // namespace ablate::kernels
