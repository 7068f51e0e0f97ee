#include "methods/models/layers.h"

#include <cmath>

#include "runner/core/hash.h"
#include "runner/core/random.h"

namespace ablate {

namespace {

template <typename Draw>
void fill(at::Tensor& parameter, std::uint64_t seed, std::string_view name, const Draw& draw) {
  RandomStream stream(seed, Purpose::ParameterInit, hash64(name));
  at::Tensor values = at::empty(parameter.sizes(), at::kDouble);
  double* data = values.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < values.numel(); ++i) data[i] = draw(stream);
  const at::NoGradGuard no_grad;
  parameter.copy_(values);
}

}  // namespace

Linear::Linear(std::int64_t in, std::int64_t out, bool with_bias)
    : weight(register_parameter("weight", at::empty({out, in}))) {
  if (with_bias) bias = register_parameter("bias", at::empty({out}));
}

void Linear::scale(double factor) {
  const at::NoGradGuard no_grad;
  weight.mul_(factor);
  if (bias.defined()) bias.mul_(factor);
}

LayerNorm::LayerNorm(std::int64_t dim, double epsilon)
    : weight(register_parameter("weight", at::ones({dim}))),
      bias(register_parameter("bias", at::zeros({dim}))),
      eps(epsilon) {}

Conv2d::Conv2d(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
               std::int64_t padding, bool with_bias, std::int64_t groups)
    : weight(register_parameter("weight", at::empty({out, in / groups, kernel, kernel}))),
      stride_(stride),
      padding_(padding),
      groups_(groups) {
  if (with_bias) bias = register_parameter("bias", at::empty({out}));
}

void fill_truncated_normal(at::Tensor& parameter, std::uint64_t seed, std::string_view name,
                           double std) {
  fill(parameter, seed, name, [std](RandomStream& stream) {
    double value = 0;
    do value = std * stream.normal();
    while (std::abs(value) > 2.0);
    return value;
  });
}

void fill_normal(at::Tensor& parameter, std::uint64_t seed, std::string_view name, double std) {
  fill(parameter, seed, name, [std](RandomStream& stream) { return std * stream.normal(); });
}

void fill_uniform(at::Tensor& parameter, std::uint64_t seed, std::string_view name, double bound) {
  fill(parameter, seed, name, [bound](RandomStream& s) { return s.uniform(-bound, bound); });
}

}  // namespace ablate
