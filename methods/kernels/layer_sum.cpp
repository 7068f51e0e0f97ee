#include "methods/kernels/layer_sum.h"

namespace ablate::kernels::reference {

template <typename T>
void layer_sum(const LayerSum<T>& a) {
  const LayerMaps<T>& layers = a.layers;
  const std::int64_t width = layers.channels / layers.heads;
  for (std::int64_t i = 0; i < layers.batch * layers.pixels * layers.channels; ++i) {
    const std::int64_t image = i / (layers.pixels * layers.channels);
    const std::int64_t head = i % layers.channels / width;
    double sum = a.base == nullptr ? 0.0 : double{to_float(a.base[i])};
    for (std::int64_t map = 0; map < layers.count; ++map) {
      sum += double{a.weights[(map * layers.batch + image) * layers.heads + head]} *
             to_float(layers.maps[map][i]);
    }
    a.sum[i] = from_float<T>(static_cast<float>(sum));
  }
}

template <typename T>
void layer_sum_gradient(const LayerSumGradient<T>& a) {
  const LayerMaps<T>& layers = a.layers;
  const std::int64_t width = layers.channels / layers.heads;
  for (std::int64_t i = 0; i < layers.count * layers.batch * layers.heads; ++i) {
    const std::int64_t head = i % layers.heads, image = i / layers.heads % layers.batch;
    const T* map = layers.maps[i / layers.heads / layers.batch];
    double sum = 0.0;
    for (std::int64_t pixel = 0; pixel < layers.pixels; ++pixel) {
      const std::int64_t row = (image * layers.pixels + pixel) * layers.channels;
      for (std::int64_t c = row + head * width; c < row + (head + 1) * width; ++c) {
        sum += double{to_float(a.upstream[c])} * to_float(map[c]);
      }
    }
    a.gradient[i] = static_cast<float>(sum);
  }
}

template void layer_sum(const LayerSum<float>&);
template void layer_sum(const LayerSum<bfloat16>&);
template void layer_sum_gradient(const LayerSumGradient<float>&);
template void layer_sum_gradient(const LayerSumGradient<bfloat16>&);

}  // namespace ablate::kernels::reference
