#pragma once

#include "runner/torch/torch.h"

namespace ablate::test {

/// y = x W^T; its backward adds the weight's gradient where it belongs, past autograd.
class OwnLinear : public torch::autograd::Function<OwnLinear> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& gradient) {
    context->save_for_backward({x, weight});
    context->saved_data["gradient"] = gradient;
    return at::linear(x, weight);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    at::Tensor place = context->saved_data["gradient"].toTensor();
    place.add_(at::mm(gradients[0].t(), saved[0]));
    return {at::mm(gradients[0], saved[1]), {}, {}};
  }
};

}  // namespace ablate::test
