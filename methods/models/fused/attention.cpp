#include "methods/kernels/attention.h"

#include <limits>

#include "methods/models/fused/common.h"
#include "methods/models/fused/fused_ops.h"

namespace ablate::fused {
namespace {

kernels::AttentionShape shape_of(const at::Tensor& qkv, std::int64_t heads) {
  const std::int64_t width = qkv.size(2) / 3;
  return {.batch = qkv.size(0),
          .tokens = qkv.size(1),
          .heads = heads,
          .head_dim = static_cast<int>(width / heads)};
}

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& qkv, std::int64_t heads,
                            const std::optional<at::Tensor>& key_bias,
                            const std::optional<at::Tensor>& qkv_bias, std::int64_t context) {
    const auto shape = shape_of(qkv, heads);
    at::Tensor out = at::empty({shape.batch, shape.tokens, qkv.size(2) / 3}, qkv.options());
    at::Tensor log_sum_exp =
        at::empty({shape.batch, heads, shape.tokens}, qkv.options().dtype(at::kFloat));
    const at::Tensor bias = optional_tensor(key_bias);
    kernels::attention({.shape = shape,
                        .qkv = half_data(qkv),
                        .key_bias = float_data(bias),
                        .out = half_data(out),
                        .log_sum_exp = float_data(log_sum_exp)},
                       current_stream());
    tape->save_for_backward({qkv, bias, out, log_sum_exp, optional_tensor(qkv_bias)});
    tape->saved_data["heads"] = heads;
    tape->saved_data["context"] = context;
    return out;
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    const auto saved = tape->get_saved_variables();
    const at::Tensor &qkv = saved[0], &bias = saved[1], &out = saved[2], &log_sum_exp = saved[3],
                     &qkv_bias = saved[4];
    FusedContext& context = to_context(tape->saved_data["context"]);
    const bool adds_bias = qkv_bias.defined();
    const auto shape = shape_of(qkv, tape->saved_data["heads"].toInt());
    const at::Tensor grad_out = gradients[0].contiguous();
    at::Tensor grad_qkv = at::empty_like(qkv);
    const at::Tensor scratch =
        workspace(kernels::attention_backward_workspace_bytes(shape, adds_bias), qkv);
    kernels::attention_backward(
        {.shape = shape,
         .qkv = half_data(qkv),
         .key_bias = float_data(bias),
         .out = half_data(out),
         .log_sum_exp = float_data(log_sum_exp),
         .grad_out = half_data(grad_out),
         .grad_qkv = half_data(grad_qkv),
         .qkv_bias_gradient = adds_bias ? float_data(context.at(qkv_bias).gradient) : nullptr},
        scratch.data_ptr(), current_stream());
    return {grad_qkv, {}, {}, {}, {}};
  }
};

}  // namespace

bool attention_supported(std::int64_t tokens, std::int64_t head_dim) {
  return head_dim <= std::numeric_limits<int>::max() &&
         kernels::attention_supported(tokens, static_cast<int>(head_dim));
}

at::Tensor attention(const at::Tensor& qkv, std::int64_t num_heads, const at::Tensor& key_bias,
                     const at::Tensor& qkv_bias, FusedContext& context) {
  return AttentionFunction::apply(qkv.contiguous(), num_heads, to_optional(key_bias),
                                  to_optional(qkv_bias), to_number(context));
}

}  // namespace ablate::fused
