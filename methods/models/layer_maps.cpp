#include "methods/models/layer_maps.h"

#include <string>
#include <utility>

#include "methods/models/fused/layer_sum.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr bool kSumFusable = ABLATE_HAS_CUDA != 0;

/// base (may be undefined) plus the maps, each times its column of weights (B, g, t).
at::Tensor add_up(const at::Tensor& base, const at::Tensor& weights, at::TensorList maps,
                  bool fused) {
  if constexpr (kSumFusable) {
    if (fused) return fused::layer_sum(base, weights, maps);
  }
  at::Tensor sum = base.defined() ? base.clone() : at::Tensor();
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const at::Tensor weight =
        spread_heads(weights.select(2, static_cast<std::int64_t>(i)), maps[i]);
    if (sum.defined()) {
      sum.addcmul_(maps[i], weight);
    } else {
      sum = maps[i] * weight;
    }
  }
  return sum;
}

/// Gradient of the weights (B, g, t).
at::Tensor weight_gradient(const at::Tensor& upstream, at::TensorList maps,
                           const at::Tensor& weights, bool fused) {
  if constexpr (kSumFusable) {
    if (fused) return fused::layer_sum_gradient(upstream, maps, weights.size(1));
  }
  std::vector<at::Tensor> columns;
  for (const at::Tensor& map : maps) {
    const at::Tensor of_channels = at::sum(upstream * map, {2, 3}, false, weights.scalar_type());
    columns.push_back(of_channels.unflatten(1, {weights.size(1), -1}).sum(2));
  }
  return at::stack(columns, 2);
}

using Uses = c10::intrusive_ptr<MapUses>;

c10::IValue to_value(const Uses& uses) {
  return c10::IValue::make_capsule(c10::intrusive_ptr<torch::CustomClassHolder>(uses));
}
Uses to_uses(const c10::IValue& value) {
  return c10::static_intrusive_pointer_cast<MapUses>(value.toCapsule());
}

struct WeightedSum : torch::autograd::Function<WeightedSum> {
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& weights, at::TensorList maps,
                            const std::vector<Uses>& uses, bool fused) {
    variable_list saved{weights};
    saved.insert(saved.end(), maps.begin(), maps.end());
    tape->save_for_backward(std::move(saved));
    tape->saved_data["fused"] = fused;
    for (std::size_t i = 0; i < uses.size(); ++i) {
      if (uses[i]) tape->saved_data[std::to_string(i)] = to_value(uses[i]);
    }
    return add_up({}, weights, maps, fused);
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    const variable_list saved = tape->get_saved_variables();
    const at::Tensor &weights = saved[0], &upstream = gradients[0];
    const bool fused = tape->saved_data["fused"].toBool();
    const std::vector<at::Tensor> maps(saved.begin() + 1, saved.end());
    variable_list result{weight_gradient(upstream, maps, weights, fused)};
    for (std::size_t i = 0; i < maps.size(); ++i) {
      const at::Tensor weight = weights.select(2, static_cast<std::int64_t>(i));
      const auto shared = tape->saved_data.find(std::to_string(i));
      if (shared != tape->saved_data.end()) {
        to_uses(shared->second)->list.push_back({weight, upstream, fused});
        result.emplace_back();
      } else {
        result.push_back(upstream * spread_heads(weight, upstream));
      }
    }
    result.resize(result.size() + 2);  // of what is no tensor
    return result;
  }
};

/// Stands between a map and its readers: its backward runs when all of theirs have.
struct ShareMap : torch::autograd::Function<ShareMap> {
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& map, const Uses& uses) {
    tape->set_materialize_grads(false);
    tape->saved_data["uses"] = to_value(uses);
    return map.variable_data();
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    const auto uses = std::exchange(to_uses(tape->saved_data["uses"])->list, {});
    if (uses.empty()) return {gradients[0], {}};
    std::vector<at::Tensor> weights, upstreams;
    for (const MapUses::Use& use : uses) {
      weights.push_back(use.weights);
      upstreams.push_back(use.upstream);
    }
    return {add_up(gradients[0], at::stack(weights, 2), upstreams, uses.front().fused), {}};
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

SharedMap share_map(const at::Tensor& map) {
  if (!at::GradMode::is_enabled()) return {map, {}};
  const auto uses = c10::make_intrusive<MapUses>();
  return {ShareMap::apply(map, uses), uses};
}

at::Tensor weighted_sum(const at::Tensor& weights, const std::vector<SharedMap>& maps,
                        const ForwardState& state) {
  ABLATE_CHECK(!maps.empty() && weights.size(2) == std::ssize(maps), weights.sizes(),
               " weights of ", maps.size(), " maps");
  std::vector<at::Tensor> tensors;
  std::vector<Uses> uses;
  for (const SharedMap& map : maps) {
    tensors.push_back(map.map);
    uses.push_back(map.uses);
  }
  return WeightedSum::apply(weights, at::TensorList(tensors), uses, state.fused != nullptr);
}

}  // namespace ablate
