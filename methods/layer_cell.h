#pragma once

#include <memory>
#include <string>

#include "methods/models/layers.h"

namespace ablate {

/// A recurrent cell that the blocks of a group share: two bottlenecks Linear - ReLU - Linear, one
/// for what comes in and one for the hidden state, C -> C / r -> gates C, whose sum is cut into
/// gates. Children input0, input1, hidden0, hidden1.
class LayerCell : public torch::nn::Module {
 public:
  /// Throws SpecError when the reduction leaves no channel.
  LayerCell(std::int64_t channels, std::int64_t reduction, std::int64_t gates);

  at::Tensor of_input(const at::Tensor& pooled) const;  ///< (B, C) -> (B, gates C)
  at::Tensor of_hidden(const at::Tensor& hidden) const;
  void initialize(std::uint64_t seed, const std::string& name);

 private:
  std::shared_ptr<Linear> add(const std::string& name, std::int64_t in, std::int64_t out);

  std::shared_ptr<Linear> input0_, input1_, hidden0_, hidden1_;
};

/// Draws a Linear as the framework of the papers does: U(+-1/sqrt(in)), bias too.
void fill_linear(Linear& layer, std::uint64_t seed, const std::string& name);

}  // namespace ablate
