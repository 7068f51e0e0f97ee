#include "methods/models/dense_layers.h"

#include <cmath>

#include "methods/models/ops_grid.h"
#include "methods/models/random_numbers.h"
#include "runner/core/error.h"

namespace ablate {

ConvNormRelu::ConvNormRelu(std::int64_t in, std::int64_t out, std::int64_t kernel,
                           std::int64_t bn_group)
    : conv_(
          register_module("conv", std::make_shared<Conv2d>(in, out, kernel, 1, kernel / 2, false))),
      bn_(register_module("bn", std::make_shared<GroupBatchNorm2d>(out, bn_group))) {}

at::Tensor ConvNormRelu::forward(const at::Tensor& map, ForwardState& state) const {
  return ops::batch_norm_relu(ops::conv2d(ops::as_activation(map, state), *conv_, state), *bn_,
                              state);
}

at::Tensor classify_places(const at::Tensor& map, const Linear& layer, ForwardState& state) {
  const at::Tensor rows = ops::as_activation(map, state).permute({0, 2, 3, 1});
  return ops::class_scores(rows, layer, state).permute({0, 3, 1, 2});
}

at::Tensor drop_channels(const at::Tensor& map, double rate, const std::string& name,
                         const ForwardState& state) {
  if (rate == 0.0) return map;
  const std::int64_t batch = map.size(0), channels = map.size(1);
  const at::Tensor kept = uniform_numbers(state, name, batch, channels, map) >= rate;
  const at::Tensor factor = kept.to(at::kDouble).mul_(1.0 / (1.0 - rate)).to(map.scalar_type());
  return map * factor.view({batch, channels, 1, 1});
}

at::Tensor plain_conv(const at::Tensor& map, const Conv2d& conv) {
  return at::conv2d(map, ops::like(conv.weight, map), ops::like(conv.bias, map), conv.stride(),
                    conv.padding());
}

namespace {

void draw_dense(at::Tensor& parameter, std::uint64_t seed, const std::string& name,
                const torch::nn::Module& owner) {
  const bool is_bias = name.ends_with("bias");
  if (const auto* conv = dynamic_cast<const Conv2d*>(&owner); conv && !is_bias) {
    const auto fan_out = static_cast<double>(conv->weight.numel() / conv->weight.size(1));
    fill_normal(parameter, seed, name, std::sqrt(2.0 / fan_out));
  } else if (dynamic_cast<const GroupBatchNorm2d*>(&owner) ||
             dynamic_cast<const LayerNorm*>(&owner)) {
    parameter.fill_(is_bias ? 0.0 : 1.0);
  } else if (is_bias) {
    parameter.zero_();
  } else if (name.ends_with("conv_seg.weight")) {
    fill_normal(parameter, seed, name, 0.01);
  } else {
    fill_truncated_normal(parameter, seed, name, 0.02);
  }
}

}  // namespace

void initialize_dense(torch::nn::Module& module, std::uint64_t seed, const std::string& name) {
  const at::NoGradGuard no_grad;
  for (const auto& part : module.named_modules(name)) {
    for (auto& own : part.value()->named_parameters(/*recurse=*/false)) {
      draw_dense(own.value(), seed, cat(part.key(), ".", own.key()), *part.value());
    }
  }
}

}  // namespace ablate
