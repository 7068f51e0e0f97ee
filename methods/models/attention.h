#pragma once

#include <memory>

#include "methods/models/layers.h"
#include "methods/models/slots.h"

namespace ablate {

/// Multi-head softmax attention, children qkv and proj (rows of qkv: Q, K, V, each head-major):
///
///   softmax(Q K^T / sqrt(d) + log(size)) V
///
/// The log-size bias of the keys is added only in proportional attention (Bolya et al., ICLR 2023),
/// and not before the first merge: until then the result is that of plain attention bit for bit.
class Attention final : public TokenMixer {
 public:
  /// num_heads must divide dim.
  Attention(std::int64_t dim, std::int64_t num_heads);

  at::Tensor forward(const at::Tensor& tokens, ForwardState& state) override;
  bool provides_keys() const override { return true; }
  void scale_output(double factor) override { proj->scale(factor); }

  std::shared_ptr<Linear> qkv, proj;

 private:
  std::int64_t num_heads_;
};

}  // namespace ablate
