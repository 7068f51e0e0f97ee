#include "methods/models/fused/layer_sum.h"

#include "methods/kernels/layer_sum.h"
#include "methods/models/fused/common.h"
#include "runner/core/error.h"

namespace ablate::fused {
namespace {

constexpr auto kMapOrder = at::MemoryFormat::ChannelsLast;

/// `kept` holds the maps in the order that the kernel reads, where they had another.
template <typename T>
kernels::LayerMaps<T> layer_maps(at::TensorList maps, std::int64_t heads,
                                 std::vector<at::Tensor>& kept) {
  using Layers = kernels::LayerMaps<T>;
  ABLATE_CHECK(!maps.empty() && std::ssize(maps) <= Layers::kMost, maps.size(),
               " maps in a sum of ", Layers::kMost, " at most");
  const at::Tensor& first = maps[0];
  Layers layers{.batch = first.size(0),
                .pixels = first.size(2) * first.size(3),
                .channels = first.size(1),
                .heads = heads,
                .count = std::ssize(maps)};
  for (std::size_t i = 0; i < maps.size(); ++i) {
    ABLATE_CHECK(
        maps[i].sizes() == first.sizes() && maps[i].dtype() == first.dtype() && maps[i].is_cuda(),
        "a sum of unlike maps");
    kept.push_back(maps[i].contiguous(kMapOrder));
    layers.maps[i] = static_cast<const T*>(kept.back().const_data_ptr());
  }
  return layers;
}

template <typename T>
void run_sum(const at::Tensor& base, const at::Tensor& weights, at::TensorList maps,
             at::Tensor& sum) {
  std::vector<at::Tensor> kept;
  const at::Tensor by_map = weights.to(at::kFloat).permute({2, 0, 1}).contiguous();
  const at::Tensor start = base.defined() ? base.contiguous(kMapOrder) : at::Tensor();
  kernels::layer_sum<T>(
      {.layers = layer_maps<T>(maps, weights.size(1), kept),
       .weights = float_data(by_map),
       .base = start.defined() ? static_cast<const T*>(start.const_data_ptr()) : nullptr,
       .sum = static_cast<T*>(sum.data_ptr())},
      current_stream());
}

template <typename T>
void run_gradient(const at::Tensor& upstream, at::TensorList maps, at::Tensor& by_map) {
  std::vector<at::Tensor> kept;
  const at::Tensor ordered = upstream.contiguous(kMapOrder);
  kernels::layer_sum_gradient<T>({.layers = layer_maps<T>(maps, by_map.size(2), kept),
                                  .upstream = static_cast<const T*>(ordered.const_data_ptr()),
                                  .gradient = float_data(by_map)},
                                 current_stream());
}

bool is_half(const at::Tensor& map) {
  ABLATE_CHECK(map.scalar_type() == at::kBFloat16 || map.scalar_type() == at::kFloat,
               "a sum of maps of type ", at::toString(map.scalar_type()));
  return map.scalar_type() == at::kBFloat16;
}

}  // namespace

at::Tensor layer_sum(const at::Tensor& base, const at::Tensor& weights, at::TensorList maps) {
  at::Tensor sum = at::empty(maps[0].sizes(), maps[0].options().memory_format(kMapOrder));
  if (is_half(sum)) {
    run_sum<kernels::bfloat16>(base, weights, maps, sum);
  } else {
    run_sum<float>(base, weights, maps, sum);
  }
  return sum;
}

at::Tensor layer_sum_gradient(const at::Tensor& upstream, at::TensorList maps, std::int64_t heads) {
  at::Tensor by_map =
      at::empty({std::ssize(maps), upstream.size(0), heads}, upstream.options().dtype(at::kFloat));
  if (is_half(upstream)) {
    run_gradient<kernels::bfloat16>(upstream, maps, by_map);
  } else {
    run_gradient<float>(upstream, maps, by_map);
  }
  return by_map.permute({1, 2, 0});
}

}  // namespace ablate::fused
