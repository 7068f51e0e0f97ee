#include "methods/kernels/cuda_check.h"
#include "methods/kernels/device.cuh"
#include "methods/kernels/layer_sum.h"
#include "runner/core/error.h"

namespace ablate::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kTogether = 4;  ///< maps whose vectors a thread has on the way at a time

template <typename T>
constexpr int kMapVector = 16 / static_cast<int>(sizeof(T));

/// Adds weight * map of the maps from `first` on, at most kTogether, to a thread's V channels.
template <int V, typename T>
__device__ __forceinline__ void add_maps(float (&sums)[V], const LayerMaps<T>& layers,
                                         const float* weights, int first, std::int64_t place,
                                         std::int64_t image, int channel) {
  Packed<V, T> packed[kTogether];
#pragma unroll
  for (int k = 0; k < kTogether; ++k) {
    if (first + k < layers.count) packed[k].load(layers.maps[first + k] + place);
  }
  const int width = static_cast<int>(layers.channels / layers.heads);
#pragma unroll
  for (int k = 0; k < kTogether; ++k) {
    if (first + k >= layers.count) break;
    const float* row = weights + ((first + k) * layers.batch + image) * layers.heads;
    float values[V];
    packed[k].unpack(values);
    if (width % V == 0) {
      const float weight = row[channel / width];
#pragma unroll
      for (int j = 0; j < V; ++j) sums[j] = fmaf(weight, values[j], sums[j]);
    } else {
#pragma unroll
      for (int j = 0; j < V; ++j) {
        sums[j] = fmaf(row[(channel + j) / width], values[j], sums[j]);
      }
    }
  }
}

template <int V, typename T>
__global__ void __launch_bounds__(kThreads) sum_kernel(LayerSum<T> a) {
  const std::int64_t place = (blockIdx.x * std::int64_t{kThreads} + threadIdx.x) * V;
  const std::int64_t image_size = a.layers.pixels * a.layers.channels;
  if (place >= a.layers.batch * image_size) return;
  const std::int64_t image = place / image_size;
  const int channel = static_cast<int>(place % a.layers.channels);
  float sums[V] = {};
  if (a.base != nullptr) load(a.base + place, sums);
  for (int first = 0; first < a.layers.count; first += kTogether) {
    add_maps(sums, a.layers, a.weights, first, place, image, channel);
  }
  store(a.sum + place, sums);
}

/// How a block of the gradient kernel looks at an image: `columns` vectors of V channels side by
/// side, and as many rows of pixels at a time as threads are left.
struct MapTile {
  int columns, rows;

  MapTile(std::int64_t channels, int vector)
      : columns(static_cast<int>(channels / vector < kThreads ? channels / vector : kThreads)),
        rows(kThreads / columns) {}
};

/// Sums over pixels and heads of one map, from the threads' sums; all threads take part.
template <int V, typename T>
__device__ void finish_map(const LayerSumGradient<T>& a, const float (&sums)[V], float* shared,
                           MapTile tile, int map, int first_channel) {
  const int channels = tile.columns * V;
  const int column = static_cast<int>(threadIdx.x) % tile.columns;
  const int row = static_cast<int>(threadIdx.x) / tile.columns;
  __syncthreads();  // readers of the map before are done
  if (row < tile.rows) {
#pragma unroll
    for (int j = 0; j < V; ++j) shared[row * channels + column * V + j] = sums[j];
  }
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.x); c < channels; c += kThreads) {
    float sum = shared[c];
    for (int r = 1; r < tile.rows; ++r) sum += shared[r * channels + c];
    shared[c] = sum;
  }
  __syncthreads();
  const int width = static_cast<int>(a.layers.channels / a.layers.heads);
  float* gradient = a.gradient + (map * a.layers.batch + blockIdx.x) * a.layers.heads;
  for (int c = static_cast<int>(threadIdx.x) * width; c < channels; c += kThreads * width) {
    if (first_channel + c >= a.layers.channels) break;
    float sum = 0.0F;
    for (int j = 0; j < width; ++j) sum += shared[c + j];
    gradient[(first_channel + c) / width] = sum;
  }
}

/// One image, kTogether maps, and the channels that a block spans.
template <int V, typename T>
__global__ void __launch_bounds__(kThreads) gradient_kernel(LayerSumGradient<T> a, MapTile tile) {
  __shared__ float shared[kThreads * V];
  const LayerMaps<T>& layers = a.layers;
  const int first = static_cast<int>(blockIdx.y) * kTogether;
  const int first_channel = static_cast<int>(blockIdx.z) * tile.columns * V;
  const int channel = first_channel + static_cast<int>(threadIdx.x) % tile.columns * V;
  const int row = static_cast<int>(threadIdx.x) / tile.columns;
  float sums[kTogether][V] = {};
  if (row < tile.rows && channel < layers.channels) {
    const std::int64_t image = blockIdx.x * layers.pixels;
    for (std::int64_t pixel = row; pixel < layers.pixels; pixel += tile.rows) {
      const std::int64_t place = (image + pixel) * layers.channels + channel;
      Packed<V, T> packed[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        packed[k].clear();
        if (first + k < layers.count) packed[k].load(layers.maps[first + k] + place);
      }
      float upstream[V];
      load(a.upstream + place, upstream);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        float values[V];
        packed[k].unpack(values);
#pragma unroll
        for (int j = 0; j < V; ++j) sums[k][j] = fmaf(upstream[j], values[j], sums[k][j]);
      }
    }
  }
#pragma unroll
  for (int k = 0; k < kTogether; ++k) {
    if (first + k < layers.count) finish_map(a, sums[k], shared, tile, first + k, first_channel);
  }
}

template <typename T>
bool has_work(const LayerMaps<T>& layers) {
  ABLATE_CHECK(layers.count >= 0 && layers.count <= LayerMaps<T>::kMost && layers.heads > 0 &&
                   layers.channels % layers.heads == 0,
               layers.count, " maps of ", layers.channels, " channels in ", layers.heads, " heads");
  return layers.batch > 0 && layers.pixels > 0 && layers.channels > 0;
}

/// Whether vectors of full width fit all rows.
template <typename T>
bool maps_are_wide(const LayerMaps<T>& layers, const T* other, const T* another) {
  bool aligned = is_aligned(other, 16) && is_aligned(another, 16);
  for (std::int64_t i = 0; i < layers.count; ++i) {
    aligned = aligned && is_aligned(layers.maps[i], 16);
  }
  return aligned && layers.channels % kMapVector<T> == 0;
}

template <int V, typename T>
void launch_sum(const LayerSum<T>& a, Stream stream) {
  const std::int64_t threads = a.layers.batch * a.layers.pixels * a.layers.channels / V;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(threads, kThreads));
  sum_kernel<V><<<blocks, kThreads, 0, stream>>>(a);
}

template <int V, typename T>
void launch_gradient(const LayerSumGradient<T>& a, Stream stream) {
  const MapTile tile(a.layers.channels, V);
  const std::int64_t spanned = std::int64_t{tile.columns} * V;
  ABLATE_CHECK(spanned >= a.layers.channels || spanned % (a.layers.channels / a.layers.heads) == 0,
               "a head of ", a.layers.channels / a.layers.heads, " channels spans two blocks of ",
               spanned);
  const dim3 grid(static_cast<unsigned>(a.layers.batch),
                  static_cast<unsigned>(ceil_div<std::int64_t>(a.layers.count, kTogether)),
                  static_cast<unsigned>(ceil_div<std::int64_t>(a.layers.channels, spanned)));
  gradient_kernel<V><<<grid, kThreads, 0, stream>>>(a, tile);
}

}  // namespace

template <typename T>
void layer_sum(const LayerSum<T>& arguments, Stream stream) {
  if (!has_work(arguments.layers)) return;
  if (maps_are_wide(arguments.layers, arguments.base, static_cast<const T*>(arguments.sum))) {
    launch_sum<kMapVector<T>>(arguments, stream);
  } else {
    launch_sum<1>(arguments, stream);
  }
  check_launch();
}

template <typename T>
void layer_sum_gradient(const LayerSumGradient<T>& arguments, Stream stream) {
  if (!has_work(arguments.layers) || arguments.layers.count == 0) return;
  if (maps_are_wide(arguments.layers, arguments.upstream, arguments.upstream)) {
    launch_gradient<kMapVector<T>>(arguments, stream);
  } else {
    launch_gradient<1>(arguments, stream);
  }
  check_launch();
}

template void layer_sum(const LayerSum<float>&, Stream);
template void layer_sum(const LayerSum<bfloat16>&, Stream);
template void layer_sum_gradient(const LayerSumGradient<float>&, Stream);
template void layer_sum_gradient(const LayerSumGradient<bfloat16>&, Stream);

}  // namespace ablate::kernels
