#pragma once

#include "methods/models/model.h"
#include "runner/torch/torch.h"

namespace ablate::test {

/// out = (BatchNorm-less) w2 tanh(w1 x + b1), with a positional table that takes no decay, a
/// running mean as buffer, and values that depend on nothing but the shape.
class ArenaModel final : public Model {
 public:
  explicit ArenaModel(at::ScalarType type = at::kDouble, std::int64_t width = 5) : width_(width) {
    add("first", {width, 3}, type);
    add("bias", {width}, type);
    add("table", {1, width}, type);
    add("last", {2, width}, type);
    mean = register_buffer("mean", at::zeros({width}, at::TensorOptions(type)));
    count = register_buffer("count", at::zeros({}, at::kLong));
  }

  void add(const std::string& name, at::IntArrayRef shape, at::ScalarType type) {
    at::Tensor values = at::empty(shape, at::TensorOptions(type));
    values.copy_(
        at::sin(at::arange(values.numel(), at::kDouble) + double(name.size())).view(shape));
    register_parameter(name, values);
  }
  void remove(const std::string& name) { parameters_.erase(name); }
  at::Tensor get(const std::string& name) { return parameters_[name]; }

  at::Tensor loss(const at::Tensor& x) {
    const at::Tensor hidden = at::tanh(at::linear(x, get("first"), get("bias")) + get("table"));
    return at::linear(hidden, get("last")).square().mean();
  }

  at::Tensor forward(const at::Tensor& x, ForwardState&) override { return loss(x); }
  at::Tensor forward_features(const at::Tensor& x, ForwardState&) override { return x; }
  std::vector<std::string> head_names() const override { return {}; }
  std::int64_t image_size() const override { return width_; }
  void initialize(std::uint64_t) override {}
  std::vector<std::string> no_weight_decay() const override { return {"table"}; }

  at::Tensor mean, count;

 private:
  std::int64_t width_;
};

/// Rows [first, first + count) of an endless table.
inline at::Tensor rows(std::int64_t first, std::int64_t count) {
  return at::cos(at::arange(first * 3, (first + count) * 3, at::kDouble)).view({count, 3});
}

}  // namespace ablate::test
