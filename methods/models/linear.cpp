#include "methods/models/linear.h"

#include <optional>
#include <string_view>

namespace ablate {

namespace {

using Pointwise = at::Tensor(const at::Tensor& x, const at::Tensor& weight,
                             const std::optional<at::Tensor>& bias, std::string_view attribute,
                             c10::List<std::optional<at::Scalar>> scalars,
                             std::optional<std::string_view> algorithm);

/// The operator by which LibTorch hands a linear layer in plain memory layout to oneDNN; nothing
/// where it was built without.
const std::optional<c10::TypedOperatorHandle<Pointwise>>& pointwise() {
  static const auto handle = []() -> std::optional<c10::TypedOperatorHandle<Pointwise>> {
    const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!found) return std::nullopt;
    return found->typed<Pointwise>();
  }();
  return handle;
}

/// a (m, k) times the transpose of b (n, k), plus bias (n). `a` is copied unless it is contiguous;
/// `b` is read as it lies.
at::Tensor product(const at::Tensor& a, const at::Tensor& b,
                   const std::optional<at::Tensor>& bias = std::nullopt) {
  return pointwise()->call(a, b, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

class OneDnnLinear : public torch::autograd::Function<OneDnnLinear> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& bias) {
    context->save_for_backward({x, weight});
    return product(x, weight, bias);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const at::Tensor dy = grads[0].reshape({-1, weight.size(0)});
    at::Tensor dx, dweight, dbias;
    if (context->needs_input_grad(0)) dx = product(dy, weight.t()).view(x.sizes());
    if (context->needs_input_grad(1)) dweight = weight_gradient(x.reshape({dy.size(0), -1}), dy);
    if (context->needs_input_grad(2)) dbias = dy.sum(0);
    return {dx, dweight, dbias};
  }

 private:
  /// dy^T x. Of the two transposed operands the narrower is the one to be copied.
  static at::Tensor weight_gradient(const at::Tensor& x, const at::Tensor& dy) {
    if (x.size(1) < dy.size(1)) return product(x.t(), dy.t()).t();
    return product(dy.t(), x.t());
  }
};

bool fits_onednn(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat && x.device().is_cpu() && x.numel() > 0;
}

}  // namespace

bool onednn_pays() {
#if defined(__x86_64__)
  static const bool pays = pointwise().has_value() && !__builtin_cpu_is("intel") &&
                           __builtin_cpu_supports("avx512f") != 0;
  return pays;
#else
  return false;
#endif
}

at::Tensor onednn_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return OneDnnLinear::apply(x, weight, bias);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (bias.defined() && onednn_pays() && fits_onednn(x)) return onednn_linear(x, weight, bias);
  return at::linear(x, weight, bias);
}

}  // namespace ablate
