#include "methods/kernels/column_sum.h"
#include "methods/kernels/gelu.h"
#include "methods/models/fused/common.h"
#include "methods/models/fused/fused_ops.h"
#include "runner/core/error.h"

namespace ablate::fused {
namespace {

/// x (rows, in), W (out, in).
struct LinearSize {
  std::int64_t rows, in, out;

  static LinearSize of(const at::Tensor& x, const at::Tensor& weight) {
    const std::int64_t in = weight.size(1);
    return {x.numel() / in, in, weight.size(0)};
  }
};

at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   FusedContext& context) {
  const auto [rows, in, out] = LinearSize::of(x, weight);
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = out;
  at::Tensor y = at::empty(shape, x.options());
  context.gemm().run(kernels::linear_forward(rows, in, out), half_data(x),
                     half_data(context.at(weight).working), y.data_ptr(),
                     half_data(context.at(bias).working), current_stream());
  return y;
}

/// The same in float.
at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         FusedContext& context) {
  const auto [rows, in, out] = LinearSize::of(x, weight);
  at::Tensor y = at::empty({rows, out}, x.options().dtype(at::kFloat));
  kernels::GemmShape shape = kernels::linear_forward(rows, in, out);
  shape.bias = false;  // which would have to be of the output's type
  shape.float_output = true;
  context.gemm().run(shape, half_data(x), half_data(context.at(weight).working), y.data_ptr(),
                     nullptr, current_stream());
  return y.add_(bias);
}

/// dW += dy^T x.
void add_weight_gradient(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                         FusedContext& context) {
  const auto [rows, in, out] = LinearSize::of(x, weight);
  context.gemm().run(kernels::linear_weight_gradient(rows, in, out), half_data(dy), half_data(x),
                     context.at(weight).gradient.data_ptr(), nullptr, current_stream());
}

void add_bias_gradient(const at::Tensor& dy, const at::Tensor& bias, FusedContext& context) {
  const std::int64_t out = bias.size(0), rows = dy.numel() / out;
  const at::Tensor scratch = workspace(kernels::column_sum_workspace_bytes(rows, out), dy);
  kernels::column_sum<kernels::bfloat16>({.values = half_data(dy),
                                          .rows = rows,
                                          .width = out,
                                          .sums = float_data(context.at(bias).gradient)},
                                         scratch.data_ptr(), current_stream());
}

/// dx = dy W.
at::Tensor input_gradient(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                          FusedContext& context) {
  const auto [rows, in, out] = LinearSize::of(x, weight);
  at::Tensor dx = at::empty_like(x);
  context.gemm().run(kernels::linear_input_gradient(rows, in, out), half_data(dy),
                     half_data(context.at(weight).working), dx.data_ptr(), nullptr,
                     current_stream());
  return dx;
}

class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, std::int64_t context, bool own_bias_gradient,
                            bool float_output) {
    tape->save_for_backward({x, weight, bias});
    tape->saved_data["context"] = context;
    tape->saved_data["own_bias_gradient"] = own_bias_gradient;
    return float_output ? float_product(x, weight, bias, to_context(context))
                        : product(x, weight, bias, to_context(context));
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    FusedContext& context = to_context(tape->saved_data["context"]);
    const auto saved = tape->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    const at::Tensor dy = gradients[0].to(at::kBFloat16).contiguous();
    add_weight_gradient(dy, x, weight, context);
    if (tape->saved_data["own_bias_gradient"].toBool()) add_bias_gradient(dy, bias, context);
    at::Tensor dx;
    if (tape->needs_input_grad(0)) dx = input_gradient(dy, x, weight, context);
    return {dx, {}, {}, {}, {}, {}};
  }
};

class LinearGeluFunction : public torch::autograd::Function<LinearGeluFunction> {
 public:
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, std::int64_t context) {
    const at::Tensor h = product(x, weight, bias, to_context(context));
    at::Tensor y = at::empty_like(h);
    kernels::gelu_forward<kernels::bfloat16>(half_data(h), half_data(y), h.numel(),
                                             current_stream());
    tape->save_for_backward({x, h, weight, bias});
    tape->saved_data["context"] = context;
    return y;
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    FusedContext& context = to_context(tape->saved_data["context"]);
    const auto saved = tape->get_saved_variables();
    const at::Tensor &x = saved[0], &h = saved[1], &weight = saved[2], &bias = saved[3];
    const at::Tensor dh = gelu_gradient(gradients[0].contiguous(), h, bias, context);
    add_weight_gradient(dh, x, weight, context);
    return {input_gradient(dh, x, weight, context), {}, {}, {}};
  }

 private:
  static at::Tensor gelu_gradient(const at::Tensor& dy, const at::Tensor& h, const at::Tensor& bias,
                                  FusedContext& context) {
    const std::int64_t width = h.size(-1), rows = h.numel() / width;
    at::Tensor dh = at::empty_like(h);
    const at::Tensor scratch = workspace(kernels::gelu_backward_workspace_bytes(rows, width), h);
    kernels::gelu_backward<kernels::bfloat16>(
        {.x = half_data(h),
         .dy = half_data(dy),
         .dx = half_data(dh),
         .rows = rows,
         .width = width,
         .bias_gradient = float_data(context.at(bias).gradient)},
        scratch.data_ptr(), current_stream());
    return dh;
  }
};

void check_input(const at::Tensor& x, const Linear& layer) {
  ABLATE_CHECK(x.scalar_type() == at::kBFloat16 && x.is_cuda(),
               "a fused Linear takes bfloat16 activations on a CUDA device");
  ABLATE_CHECK(x.size(-1) == layer.weight.size(1), x.sizes(), " into a Linear of ",
               layer.weight.sizes());
}

at::Tensor apply_linear(const at::Tensor& x, const Linear& layer, FusedContext& context,
                        bool own_bias_gradient, bool float_output) {
  check_input(x, layer);
  return LinearFunction::apply(x.contiguous(), layer.weight, layer.bias, to_number(context),
                               own_bias_gradient, float_output);
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const Linear& layer, FusedContext& context,
                  bool own_bias_gradient) {
  return apply_linear(x, layer, context, own_bias_gradient, /*float_output=*/false);
}

at::Tensor class_scores(const at::Tensor& x, const Linear& layer, FusedContext& context) {
  return apply_linear(x, layer, context, /*own_bias_gradient=*/true, /*float_output=*/true);
}

at::Tensor linear_gelu(const at::Tensor& x, const Linear& layer, FusedContext& context) {
  check_input(x, layer);
  return LinearGeluFunction::apply(x.contiguous(), layer.weight, layer.bias, to_number(context));
}

}  // namespace ablate::fused
