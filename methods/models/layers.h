#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "methods/models/linear.h"
#include "runner/torch/torch.h"

namespace ablate {

// Own modules instead of LibTorch's: those fill their weights in the constructor from torch's
// process-wide generator, which costs seconds for a large model and breaks the rule that a number
// is a function of its key. Parameters here are uninitialised; Model::initialize fills them.

/// y = x W^T + b over the last dimension. weight (out, in), bias (out) unless told otherwise.
class Linear : public torch::nn::Module {
 public:
  Linear(std::int64_t in, std::int64_t out, bool with_bias = true);
  at::Tensor forward(const at::Tensor& x) const { return linear(x, weight, bias); }
  /// Multiplies weight and bias: exact for powers of two.
  void scale(double factor);

  at::Tensor weight, bias;
};

/// Normalises the last dimension. weight and bias (dim), born as 1 and 0.
class LayerNorm : public torch::nn::Module {
 public:
  LayerNorm(std::int64_t dim, double eps);
  at::Tensor forward(const at::Tensor& x) const {
    return at::layer_norm(x, weight.sizes(), weight, bias, eps);
  }

  at::Tensor weight, bias;
  double eps;
};

/// Square convolution. weight (out, in / groups, kernel, kernel), bias (out) when asked for.
class Conv2d : public torch::nn::Module {
 public:
  Conv2d(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
         std::int64_t padding, bool with_bias, std::int64_t groups = 1);
  at::Tensor forward(const at::Tensor& x) const {
    return at::conv2d(x, weight, bias, stride_, padding_, 1, groups_);
  }
  std::int64_t stride() const { return stride_; }
  std::int64_t padding() const { return padding_; }

  at::Tensor weight, bias;

 private:
  std::int64_t stride_, padding_, groups_;
};

// Initial values of one parameter, drawn from RandomStream(seed, Purpose::ParameterInit,
// hash64(name)) in row-major order, so that they depend on nothing but seed and name.

/// Normal(0, std) truncated at +-2 absolute, as timm draws transformer weights.
void fill_truncated_normal(at::Tensor& parameter, std::uint64_t seed, std::string_view name,
                           double std);
void fill_normal(at::Tensor& parameter, std::uint64_t seed, std::string_view name, double std);
/// Uniform in [-bound, bound).
void fill_uniform(at::Tensor& parameter, std::uint64_t seed, std::string_view name, double bound);

}  // namespace ablate
