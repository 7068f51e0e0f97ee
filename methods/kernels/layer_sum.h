#pragma once

#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

// Weighted sums over the feature maps of several layers (Fang et al., "Cross-Layer Retrospective
// Retrieving via Layer Attention", ICLR 2023), where the maps lie: none is copied. T is float or
// bfloat16, sums are in float, in a fixed order. Rows of channels that are multiples of 16 bytes
// and aligned to them run at full speed.

/// Maps of one sum.
template <typename T>
struct LayerMaps {
  static constexpr std::int64_t kMost = 64;

  std::int64_t batch = 0;
  std::int64_t pixels = 0;
  std::int64_t channels = 0;
  std::int64_t heads = 1;     ///< of channels / heads neighbouring channels
  std::int64_t count = 0;     ///< of maps, at most kMost
  const T* maps[kMost] = {};  ///< (batch, pixels, channels) each
};

/// sum[b, p, c] = base[b, p, c] + sum_i weights[i, b, head of c] maps[i][b, p, c].
template <typename T>
struct LayerSum {
  LayerMaps<T> layers;
  const float* weights = nullptr;  ///< (count, batch, heads)
  const T* base = nullptr;         ///< null: 0
  T* sum = nullptr;
};
template <typename T>
void layer_sum(const LayerSum<T>& arguments, Stream stream);

/// gradient[i, b, h] = sum over pixels and the channels of head h of upstream maps[i].
template <typename T>
struct LayerSumGradient {
  LayerMaps<T> layers;
  const T* upstream = nullptr;  ///< (batch, pixels, channels)
  float* gradient = nullptr;    ///< (count, batch, heads)
};
template <typename T>
void layer_sum_gradient(const LayerSumGradient<T>& arguments, Stream stream);

namespace reference {
template <typename T>
void layer_sum(const LayerSum<T>& arguments);
template <typename T>
void layer_sum_gradient(const LayerSumGradient<T>& arguments);
}  // namespace reference

}  // namespace ablate::kernels
