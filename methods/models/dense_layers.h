#pragma once

#include <memory>
#include <string>

#include "methods/models/batch_norm.h"
#include "methods/models/layers.h"
#include "methods/models/slots.h"

// What heads and necks of dense models are made of.

namespace ablate {

/// relu(norm(x * W)) that keeps the size of a map; children conv (without bias) and bn.
class ConvNormRelu final : public torch::nn::Module {
 public:
  ConvNormRelu(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t bn_group);
  at::Tensor forward(const at::Tensor& map, ForwardState& state) const;

 private:
  std::shared_ptr<Conv2d> conv_;
  std::shared_ptr<GroupBatchNorm2d> bn_;
};

/// Scores of classes for each place, (B, C, h, w) -> (B, K, h, w), in float in fused passes.
at::Tensor classify_places(const at::Tensor& map, const Linear& layer, ForwardState& state);

/// Drops whole channels of an image in training and amplifies the others (Tompson et al., CVPR
/// 2015): a function of seed, `name`, step and place in the global batch.
at::Tensor drop_channels(const at::Tensor& map, double rate, const std::string& name,
                         const ForwardState& state);

/// A convolution with bias that no fused operation knows.
at::Tensor plain_conv(const at::Tensor& map, const Conv2d& conv);

/// Draws the parameters of everything below `module` as mmsegmentation does: convolutions normal
/// with variance 2 / fan out (He et al., ICCV 2015) and biases 0, norms 1 and 0, Linears named
/// "conv_seg" N(0, 0.01), other Linears and single parameters truncated normal with deviation 0.02.
void initialize_dense(torch::nn::Module& module, std::uint64_t seed, const std::string& name);

}  // namespace ablate
