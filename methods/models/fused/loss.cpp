#include "methods/kernels/cross_entropy.h"
#include "methods/models/fused/common.h"
#include "methods/models/fused/fused_ops.h"
#include "runner/core/error.h"

namespace ablate::fused {
namespace {

/// The gradient is known with the loss; backward only scales it by what comes from above.
class CrossEntropyFunction : public torch::autograd::Function<CrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& logits,
                            const at::Tensor& labels, const std::optional<at::Tensor>& other,
                            const std::optional<at::Tensor>& mix, double smoothing) {
    at::Tensor loss = at::empty({}, logits.options().dtype(at::kFloat));
    at::Tensor losses = at::empty({logits.size(0)}, loss.options());
    at::Tensor d_logits = at::empty(logits.sizes(), logits.options());
    const at::Tensor others = optional_tensor(other), shares = optional_tensor(mix);
    const auto call = [&]<typename T>(const T* data, T* gradient) {
      kernels::cross_entropy<T>(
          {.rows = logits.size(0),
           .classes = logits.size(1),
           .logits = data,
           .logits_stride = logits.stride(0),
           .labels = labels.const_data_ptr<std::int64_t>(),
           .other_labels = others.defined() ? others.const_data_ptr<std::int64_t>() : nullptr,
           .mix = float_data(shares),
           .label_smoothing = static_cast<float>(smoothing),
           .loss_scale = 1.0F,
           .losses = float_data(losses),
           .mean_loss = float_data(loss),
           .d_logits = gradient,
           .d_logits_stride = 0},
          current_stream());
    };
    if (logits.scalar_type() == at::kFloat) {
      call(logits.const_data_ptr<float>(), float_data(d_logits));
    } else {
      call(static_cast<const kernels::bfloat16*>(half_data(logits)), half_data(d_logits));
    }
    tape->save_for_backward({d_logits});
    return loss;
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    const at::Tensor d_logits = tape->get_saved_variables()[0];
    return {d_logits * gradients[0].to(d_logits.scalar_type()), {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor cross_entropy(const at::Tensor& logits, const ops::SoftTargets& targets) {
  ABLATE_CHECK(logits.dim() == 2 && logits.stride(1) == 1, "logits of ", logits.sizes());
  return CrossEntropyFunction::apply(logits, targets.labels, to_optional(targets.other),
                                     to_optional(targets.mix), targets.smoothing);
}

}  // namespace ablate::fused
