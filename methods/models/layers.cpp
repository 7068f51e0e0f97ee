#include "methods/models/layers.h"

#include <algorithm>
#include <iterator>
#include <thread>
#include <vector>

#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/process.h"
#include "runner/core/random.h"

namespace ablate {

namespace {

/// Values of a parameter in the order of its stream. Every draw takes two words, half a block of
/// the stream, so that threads begin where they are: the values do not depend on their number.
template <typename Draw>
void fill(at::Tensor& parameter, std::uint64_t seed, std::string_view name, const Draw& draw) {
  constexpr std::int64_t kDrawsPerBlock = 2, kLeastPerThread = std::int64_t{1} << 15;
  at::Tensor values = at::empty(parameter.sizes(), at::kDouble);
  double* data = values.mutable_data_ptr<double>();
  const std::int64_t count = values.numel();
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    RandomStream stream(seed, Purpose::ParameterInit, hash64(name));
    stream.seek(static_cast<std::uint32_t>(begin / kDrawsPerBlock));
    for (std::int64_t i = begin; i < end; ++i) data[i] = draw(stream);
  };
  const std::int64_t threads =
      std::clamp<std::int64_t>(count / kLeastPerThread, 1, std::ssize(available_cpus()));
  const std::int64_t share = (count / threads / kDrawsPerBlock + 1) * kDrawsPerBlock;
  {
    std::vector<std::jthread> others;
    for (std::int64_t begin = share; begin < count; begin += share) {
      others.emplace_back(part, begin, std::min(count, begin + share));
    }
    part(0, std::min(count, share));
  }
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
  // RandomStream::normal() stays below 6.8, so that nothing is ever cut off.
  ABLATE_CHECK(6.8 * std <= 2.0, "truncated normal of standard deviation ", std);
  fill_normal(parameter, seed, name, std);
}

void fill_normal(at::Tensor& parameter, std::uint64_t seed, std::string_view name, double std) {
  fill(parameter, seed, name, [std](RandomStream& stream) { return std * stream.normal(); });
}

void fill_uniform(at::Tensor& parameter, std::uint64_t seed, std::string_view name, double bound) {
  fill(parameter, seed, name, [bound](RandomStream& s) { return s.uniform(-bound, bound); });
}

}  // namespace ablate
