#pragma once

#include <map>
#include <string>
#include <vector>

#include "methods/models/model.h"
#include "methods/transfer_entropy.h"

namespace ablate {

/// Entropies of what a model computes on its way, by the Gaussian surrogate of GaussianEntropy in
/// nats: each token of each image is a sample, each channel a variable.
class EntropyProfile {
 public:
  /// `taps`: names of intermediate tensors (B, N, C) as ForwardState::taps has them
  /// ("blocks.3.attn" for the output of an attention branch).
  explicit EntropyProfile(const std::vector<std::string>& taps);

  /// One pass over images; those of weight 0 do not count.
  void add(Model& model, const at::Tensor& images, const at::Tensor& weights);
  /// As GaussianEntropy::reduce().
  void reduce(Communicator& communicator, at::Device device);
  /// By tap; one that the model does not compute (removed attention) is left out. Throws Error,
  /// naming tap and channel, when one is constant.
  std::map<std::string, double> entropies() const;

 private:
  std::map<std::string, GaussianEntropy> statistics_;
};

}  // namespace ablate
