#include "methods/models/initialize.h"

#include <cmath>
#include <string>

#include "methods/models/layers.h"

namespace ablate {
namespace {

void draw_parameter(at::Tensor& parameter, std::uint64_t seed, const std::string& name,
                    const torch::nn::Module& owner) {
  if (const auto* conv = dynamic_cast<const Conv2d*>(&owner)) {
    const auto fan_in = static_cast<double>(conv->weight[0].numel());
    fill_uniform(parameter, seed, name, 1.0 / std::sqrt(fan_in));
  } else if (dynamic_cast<const LayerNorm*>(&owner)) {
    parameter.fill_(name.ends_with("weight") ? 1.0 : 0.0);
  } else if (name.ends_with("bias") || name.ends_with("positional_encoding") ||
             name.ends_with("scale")) {
    parameter.zero_();
  } else {
    fill_truncated_normal(parameter, seed, name, 0.02);
  }
}

}  // namespace

void initialize_transformer(torch::nn::Module& model, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (const auto& module : model.named_modules()) {
    for (auto& own : module.value()->named_parameters(/*recurse=*/false)) {
      const std::string name = module.key().empty() ? own.key() : module.key() + "." + own.key();
      draw_parameter(own.value(), seed, name, *module.value());
    }
  }
}

}  // namespace ablate
