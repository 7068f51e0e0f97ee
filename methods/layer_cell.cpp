#include "methods/layer_cell.h"

#include <cmath>

#include "runner/core/error.h"

namespace ablate {

void fill_linear(Linear& layer, std::uint64_t seed, const std::string& name) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(layer.weight.size(1)));
  fill_uniform(layer.weight, seed, name + ".weight", bound);
  fill_uniform(layer.bias, seed, name + ".bias", bound);
}

LayerCell::LayerCell(std::int64_t channels, std::int64_t reduction, std::int64_t gates) {
  const std::int64_t narrow = channels / reduction;
  if (narrow == 0) {
    throw SpecError(cat("reduction = ", reduction, " leaves nothing of ", channels, " channels"));
  }
  input0_ = add("input0", channels, narrow);
  input1_ = add("input1", narrow, gates * channels);
  hidden0_ = add("hidden0", channels, narrow);
  hidden1_ = add("hidden1", narrow, gates * channels);
}

std::shared_ptr<Linear> LayerCell::add(const std::string& name, std::int64_t in, std::int64_t out) {
  return register_module(name, std::make_shared<Linear>(in, out));
}

at::Tensor LayerCell::of_input(const at::Tensor& pooled) const {
  return input1_->forward(at::relu(input0_->forward(pooled)));
}

at::Tensor LayerCell::of_hidden(const at::Tensor& hidden) const {
  return hidden1_->forward(at::relu(hidden0_->forward(hidden)));
}

void LayerCell::initialize(std::uint64_t seed, const std::string& name) {
  fill_linear(*input0_, seed, name + ".input0");
  fill_linear(*input1_, seed, name + ".input1");
  fill_linear(*hidden0_, seed, name + ".hidden0");
  fill_linear(*hidden1_, seed, name + ".hidden1");
}

}  // namespace ablate
