#include "methods/layer_maps.h"

#include "runner/core/error.h"

namespace ablate {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Column i of weights (B, g, t) for maps of C channels, (B, C, 1, 1).
at::Tensor weight_of(const at::Tensor& weights, std::int64_t i, const at::Tensor& map) {
  return spread_heads(weights.select(2, i), map);
}

/// In place, so that each map is read once and the sum stays where it is.
struct WeightedSum : torch::autograd::Function<WeightedSum> {
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& weights, at::TensorList maps) {
    variable_list saved{weights};
    saved.insert(saved.end(), maps.begin(), maps.end());
    tape->save_for_backward(std::move(saved));
    at::Tensor sum = maps[0] * weight_of(weights, 0, maps[0]);
    for (std::size_t i = 1; i < maps.size(); ++i) {
      sum.addcmul_(maps[i], weight_of(weights, static_cast<std::int64_t>(i), maps[i]));
    }
    return sum;
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    const variable_list saved = tape->get_saved_variables();
    const at::Tensor &weights = saved[0], &upstream = gradients[0];
    const std::int64_t batch = weights.size(0), heads = weights.size(1);
    variable_list result{at::Tensor()}, of_weights;
    for (std::size_t i = 1; i < saved.size(); ++i) {
      const at::Tensor& map = saved[i];
      result.push_back(upstream * weight_of(weights, static_cast<std::int64_t>(i) - 1, map));
      const at::Tensor of_channels = at::sum(upstream * map, {2, 3}, false, weights.scalar_type());
      of_weights.push_back(of_channels.view({batch, heads, -1}).sum(2));
    }
    result[0] = at::stack(of_weights, 2);
    return result;
  }
};

}  // namespace

at::Tensor pool_channels(const at::Tensor& map) {
  return map.mean({2, 3}, false, at::promote_types(map.scalar_type(), at::kFloat));
}

std::vector<at::Tensor> channel_convs(const at::Tensor& y, const std::vector<at::Tensor>& kernels) {
  const std::int64_t padding = kernels.front().size(2) / 2;
  const at::Tensor together = kernels.size() == 1 ? kernels.front() : at::cat(kernels);
  return at::conv1d(y.unsqueeze(1), together.to(y.scalar_type()), {}, 1, padding).unbind(1);
}

at::Tensor depthwise_conv(const at::Tensor& map, const at::Tensor& kernels) {
  return at::conv2d(map, kernels.to(map.scalar_type()), {}, 1, 1, 1, map.size(1));
}

at::Tensor spread_heads(const at::Tensor& factors, const at::Tensor& map) {
  const std::int64_t batch = factors.size(0), heads = factors.size(1), channels = map.size(1);
  ABLATE_CHECK(channels % heads == 0, heads, " heads of ", channels, " channels");
  return factors.to(map.scalar_type())
      .unsqueeze(2)
      .expand({batch, heads, channels / heads})
      .reshape({batch, channels, 1, 1});
}

at::Tensor as_channel_factors(const at::Tensor& factors, const at::Tensor& map) {
  return factors.to(map.scalar_type()).view({factors.size(0), map.size(1), 1, 1});
}

at::Tensor weighted_sum(const at::Tensor& weights, const std::vector<at::Tensor>& maps) {
  ABLATE_CHECK(!maps.empty() && weights.size(2) == std::ssize(maps), weights.sizes(),
               " weights of ", maps.size(), " maps");
  return WeightedSum::apply(weights, at::TensorList(maps));
}

}  // namespace ablate
