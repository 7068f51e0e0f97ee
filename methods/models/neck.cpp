#include "methods/models/neck.h"

#include <cmath>

#include "methods/models/batch_norm.h"
#include "methods/models/dense_layers.h"
#include "methods/models/ops_grid.h"
#include "methods/models/ops_resize.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

constexpr std::size_t kNeckLevels = 4;

/// A transposed convolution of 2 x 2 pixels with stride 2: each place becomes four. weight
/// (in, out, 2, 2), bias (out). One matrix product.
class Deconv final : public torch::nn::Module {
 public:
  explicit Deconv(std::int64_t channels)
      : weight(register_parameter("weight", at::empty({channels, channels, 2, 2}))),
        bias(register_parameter("bias", at::empty({channels}))) {}

  at::Tensor forward(const at::Tensor& map) const {
    const std::int64_t batch = map.size(0), height = map.size(2), width = map.size(3),
                       out = weight.size(1);
    const at::Tensor rows = map.permute({0, 2, 3, 1});
    const at::Tensor kernel = ops::like(weight, map).permute({2, 3, 1, 0}).flatten(0, 2);
    const at::Tensor places = at::linear(rows, kernel).view({batch, height, width, 2, 2, out});
    return (places + ops::like(bias, map))
        .permute({0, 1, 3, 2, 4, 5})
        .reshape({batch, 2 * height, 2 * width, out})
        .permute({0, 3, 1, 2});
  }

  at::Tensor weight, bias;
};

class PyramidNeck final : public Neck {
 public:
  PyramidNeck(std::int64_t channels, std::int64_t bn_group) {
    const auto twice = register_module("fpn1", std::make_shared<torch::nn::Module>());
    first_ = twice->register_module("0", std::make_shared<Deconv>(channels));
    norm_ = twice->register_module("1", std::make_shared<GroupBatchNorm2d>(channels, bn_group));
    second_ = twice->register_module("3", std::make_shared<Deconv>(channels));
    const auto once = register_module("fpn2", std::make_shared<torch::nn::Module>());
    only_ = once->register_module("0", std::make_shared<Deconv>(channels));
  }

  std::vector<at::Tensor> forward(const std::vector<at::Tensor>& maps,
                                  ForwardState& state) override {
    const auto map = [&](std::size_t i) { return ops::as_activation(maps.at(i), state); };
    const at::Tensor normed = ops::batch_norm(first_->forward(map(0)), *norm_, state);
    return {second_->forward(at::gelu(normed)), only_->forward(map(1)), map(2),
            ops::halve_by_max(map(3))};
  }

  /// The framework's default for transposed convolutions, whose fan it takes from the outputs.
  void initialize(std::uint64_t seed, const std::string& name) override {
    initialize_dense(*this, seed, name);
    const at::NoGradGuard no_grad;
    for (auto& item : named_parameters()) {
      if (item.key().starts_with("fpn1.1.")) continue;
      const auto fan = static_cast<double>(4 * norm_->weight.size(0));
      fill_uniform(item.value(), seed, cat(name, ".", item.key()), 1.0 / std::sqrt(fan));
    }
  }

 private:
  std::shared_ptr<Deconv> first_, second_, only_;
  std::shared_ptr<GroupBatchNorm2d> norm_;
};

class MultiLevelNeck final : public Neck {
 public:
  explicit MultiLevelNeck(std::int64_t channels) {
    const auto laterals = register_module("lateral_convs", std::make_shared<torch::nn::Module>());
    const auto convs = register_module("convs", std::make_shared<torch::nn::Module>());
    for (std::size_t i = 0; i < kNeckLevels; ++i) {
      laterals_.push_back(add(*laterals, i, channels, 1));
      convs_.push_back(add(*convs, i, channels, 3));
    }
  }

  std::vector<at::Tensor> forward(const std::vector<at::Tensor>& maps,
                                  ForwardState& state) override {
    std::vector<at::Tensor> result;
    for (std::size_t i = 0; i < kNeckLevels; ++i) {
      const at::Tensor x = plain_conv(ops::as_activation(maps.at(i), state), *laterals_[i]);
      result.push_back(plain_conv(resize(x, i), *convs_[i]));
    }
    return result;
  }

  /// Uniform in +-sqrt(6 / (fan in + fan out)) (Glorot and Bengio, AISTATS 2010).
  void initialize(std::uint64_t seed, const std::string& name) override {
    initialize_dense(*this, seed, name);
    const at::NoGradGuard no_grad;
    for (auto& item : named_parameters()) {
      if (item.value().dim() != 4) continue;
      const auto fans = static_cast<double>(2 * item.value()[0].numel());
      fill_uniform(item.value(), seed, cat(name, ".", item.key()), std::sqrt(6.0 / fans));
    }
  }

 private:
  /// 4, 2, 1 and 1/2 of the size. Between the centres of places, half of it is the mean of four.
  static at::Tensor resize(const at::Tensor& map, std::size_t level) {
    if (level + 1 == kNeckLevels) return at::avg_pool2d(map, 2);
    const std::int64_t factor = std::int64_t{4} >> level;
    return ops::resize_bilinear(map, factor * map.size(2), factor * map.size(3));
  }

  static std::shared_ptr<Conv2d> add(torch::nn::Module& list, std::size_t number,
                                     std::int64_t channels, std::int64_t kernel) {
    const auto place =
        list.register_module(std::to_string(number), std::make_shared<torch::nn::Module>());
    return place->register_module(
        "conv", std::make_shared<Conv2d>(channels, channels, kernel, 1, kernel / 2, true));
  }

  std::vector<std::shared_ptr<Conv2d>> laterals_, convs_;
};

}  // namespace

std::shared_ptr<Neck> make_pyramid_neck(std::int64_t channels, std::int64_t bn_group) {
  return std::make_shared<PyramidNeck>(channels, bn_group);
}

std::shared_ptr<Neck> make_multi_level_neck(std::int64_t channels) {
  return std::make_shared<MultiLevelNeck>(channels);
}

std::vector<FeatureLevel> neck_levels(const FeatureLevel& level) {
  std::vector<FeatureLevel> levels;
  for (std::size_t i = 0; i < kNeckLevels; ++i) {
    levels.push_back({level.channels, level.stride * (std::int64_t{1} << i) / 4});
  }
  return levels;
}

}  // namespace ablate
