#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <string_view>

#include "methods/models/model.h"
#include "runner/core/params.h"
#include "runner/core/value.h"

namespace ablate::test {

/// A registered model from its name and the TOML text of its settings; parameters uninitialised.
inline std::shared_ptr<Model> make_model(std::string_view name, std::string_view settings = "",
                                         std::int64_t classes = 10, std::int64_t bn_group = 0) {
  const Value table = parse_toml(settings, "test");
  Params params(table, "model");
  const ModelBuilder build = Registry<ModelInfo>::get(name).configure(name, params);
  params.finish();
  return build({.num_classes = classes, .bn_group = bn_group});
}

/// A small ViT in evaluation mode and float64 whose logits are known from timm 0.3.2 for
/// golden_images(): 17 tokens, width 12, 2 heads, 3 blocks, 5 classes. Element n of tensor j in
/// state-dict order is made from w = sin(0.7 n + 1.3 j + (0.05 n^2 mod 7)).
inline std::shared_ptr<Model> golden_vit() {
  auto model = make_model("vit",
                          "image_size = 32\npatch_size = 8\nembed_dim = 12\nnum_heads = 2\n"
                          "depth = 3\nmlp_ratio = 4.0",
                          5);
  model->to(at::kDouble);
  model->eval();
  const at::NoGradGuard no_grad;
  double j = 0;
  for (auto& item : model->named_parameters()) {
    const std::string& name = item.key();
    const at::Tensor n = at::arange(item.value().numel(), at::kDouble);
    const at::Tensor w =
        (0.7 * n + 1.3 * j + at::fmod(0.05 * n * n, 7)).sin().view_as(item.value());
    const bool norm_weight = name.find("norm") != std::string::npos && name.ends_with("weight");
    const double factor = name == "pos_embed" ? 0.5 : name.ends_with("bias") ? 0.05 : 0.3;
    item.value().copy_(norm_weight ? 1 + 0.1 * w : factor * w);
    j += 1;
  }
  return model;
}

/// The two images that go with golden_vit(), float64.
inline at::Tensor golden_images() {
  const at::Tensor k = at::arange(2 * 3 * 32 * 32, at::kDouble);
  return ((0.013 * k + 0.2).sin() + 0.5 * (0.37 * k).cos()).view({2, 3, 32, 32});
}

/// Images with texture, reproducible: (batch, 3, side, side).
inline at::Tensor wavy_images(std::int64_t batch, std::int64_t side,
                              at::ScalarType type = at::kFloat) {
  const at::Tensor k = at::arange(batch * 3 * side * side, at::kDouble);
  return ((0.013 * k + 0.2).sin() + 0.5 * (0.37 * k).cos()).view({batch, 3, side, side}).to(type);
}

/// One pass without gradients, in the mode the model is in.
inline at::Tensor logits_of(Model& model, const at::Tensor& images) {
  const at::NoGradGuard no_grad;
  ForwardState state;
  return model.forward(images, state);
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

inline std::int64_t parameter_count(const torch::nn::Module& module) {
  std::int64_t count = 0;
  for (const at::Tensor& parameter : module.parameters()) count += parameter.numel();
  return count;
}

}  // namespace ablate::test
