#include "runner/train/pixel_cross_entropy.h"

namespace ablate {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Image by image: what lies between scores and loss is as large as the scores.
class PixelCrossEntropy : public torch::autograd::Function<PixelCrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& scores,
                            const at::Tensor& classes, const at::Tensor& factors) {
    const at::Tensor norms = at::empty_like(factors);  // log sum_k exp z_k
    at::Tensor loss = at::zeros({}, scores.options());
    for (std::int64_t i = 0; i < scores.size(0); ++i) {
      norms[i].copy_(at::logsumexp(scores[i], 0));
      const at::Tensor own = scores[i].gather(0, classes[i].unsqueeze(0)).squeeze(0);
      loss += ((norms[i] - own) * factors[i]).sum();
    }
    context->save_for_backward({scores, classes, factors, norms});
    return loss;
  }

  /// d z_k = (softmax_k - [k = y]) * factor.
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &scores = saved[0], &classes = saved[1], &factors = saved[2];
    const at::Tensor gradient = at::empty_like(scores);
    const at::Tensor every = at::arange(scores.size(1), classes.options()).view({-1, 1, 1});
    for (std::int64_t i = 0; i < scores.size(0); ++i) {
      at::Tensor image = gradient[i];
      at::sub_out(image, scores[i], saved[3][i].unsqueeze(0));
      const at::Tensor own = (every == classes[i].unsqueeze(0)).to(image.scalar_type());
      image.exp_().sub_(own).mul_(factors[i] * gradients[0]);
    }
    return {gradient, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor pixel_cross_entropy(const at::Tensor& scores, const at::Tensor& classes,
                               const at::Tensor& factors) {
  return PixelCrossEntropy::apply(scores, classes, factors);
}

}  // namespace ablate
