#include "methods/models/fused/focused_attention.h"

#include <cmath>

#include "methods/kernels/depthwise.h"
#include "methods/kernels/linear_attention.h"
#include "methods/models/fused/common.h"

namespace ablate::fused {
namespace {

/// Packed rows of queries, keys and values, (B, N, 3 C), and what the kernels need to know of them.
struct FocusedRows {
  std::int64_t batch, tokens, width, heads, prefix;

  static FocusedRows of(const at::Tensor& packed, std::int64_t heads, std::int64_t prefix) {
    return {packed.size(0), packed.size(1), packed.size(2) / 3, heads, prefix};
  }
  kernels::AttentionShape shape() const {
    return {.batch = batch,
            .tokens = tokens,
            .heads = heads,
            .head_dim = static_cast<int>(width / heads)};
  }
  /// The tokens behind the prefix, of rows that are `stride` elements apart.
  template <typename T>
  kernels::TokenMap<T> map(T* data, std::int64_t stride) const {
    return {data + prefix * stride, stride, tokens * stride};
  }
  kernels::DepthwiseShape convolution(const at::Tensor& kernel) const {
    const auto side =
        static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(tokens - prefix))));
    return {.batch = batch,
            .height = side,
            .width = side,
            .channels = width,
            .kernels = kernel.size(0),
            .side = static_cast<int>(kernel.size(2))};
  }
};

kernels::Focus focus_of(const FocusedRows& rows, const kernels::bfloat16* x, std::int64_t x_stride,
                        const at::Tensor& unit) {
  return {.rows = rows.batch * rows.tokens,
          .width = rows.width,
          .x = x,
          .x_stride = x_stride,
          .scale = float_data(unit)};
}

/// Keys as they enter their focusing map.
struct PlacedKeys {
  PlacedKeys(const at::Tensor& packed, const at::Tensor& with_position, std::int64_t width)
      : data(with_position.defined() ? half_data(with_position) : half_data(packed) + width),
        stride(with_position.defined() ? width : 3 * width) {}

  const kernels::bfloat16* data;
  std::int64_t stride;
};

kernels::LinearAttention attention_of(const FocusedRows& rows, const at::Tensor& packed,
                                      const at::Tensor& operands, const at::Tensor& out) {
  const std::int64_t width = rows.width;
  return {.shape = rows.shape(),
          .q = {half_data(operands), 2 * width},
          .k = {half_data(operands) + width, 2 * width},
          .v = {half_data(packed) + 2 * width, 3 * width},
          .out = half_data(out)};
}

/// kernel (kernels, 1, k, k) and its bias are those of the depthwise convolution of the values.
class FocusedAttentionFunction : public torch::autograd::Function<FocusedAttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& packed,
                            const std::optional<at::Tensor>& position, const at::Tensor& unit,
                            const std::optional<at::Tensor>& kernel,
                            const std::optional<at::Tensor>& bias, std::int64_t heads,
                            std::int64_t prefix) {
    const FocusedRows rows = FocusedRows::of(packed, heads, prefix);
    const std::int64_t width = rows.width;
    at::Tensor placed;
    if (position) placed = packed.narrow(2, width, width) + position->to(at::kBFloat16);
    const PlacedKeys keys(packed, placed, width);
    const at::Tensor operands = at::empty({rows.batch, rows.tokens, 2 * width}, packed.options());
    kernels::Focus query = focus_of(rows, half_data(packed), 3 * width, unit),
                   key = focus_of(rows, keys.data, keys.stride, unit);
    query.y = half_data(operands);
    key.y = half_data(operands) + width;
    query.y_stride = key.y_stride = 2 * width;
    kernels::focus(query, current_stream());
    kernels::focus(key, current_stream());
    const at::Tensor out = at::empty({rows.batch, rows.tokens, width}, packed.options());
    kernels::linear_attention(attention_of(rows, packed, operands, out), current_stream());
    tape->save_for_backward({packed, placed, operands, out, unit, optional_tensor(kernel)});
    tape->saved_data["heads"] = heads;
    tape->saved_data["prefix"] = prefix;
    return kernel ? convolve(rows, packed, *kernel, *bias, out) : out.clone();
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    const auto saved = tape->get_saved_variables();
    const at::Tensor &packed = saved[0], &placed = saved[1], &unit = saved[4], &kernel = saved[5];
    const FocusedRows rows = FocusedRows::of(packed, tape->saved_data["heads"].toInt(),
                                             tape->saved_data["prefix"].toInt());
    const std::int64_t width = rows.width;
    const at::Tensor dy = gradients[0].contiguous();
    at::Tensor d_packed = at::empty_like(packed), d_unit = at::zeros_like(unit);
    const at::Tensor d_operands = at::empty_like(saved[2]);
    kernels::linear_attention_backward({.forward = attention_of(rows, packed, saved[2], saved[3]),
                                        .grad_out = half_data(dy),
                                        .grad_q = {half_data(d_operands), 2 * width},
                                        .grad_k = {half_data(d_operands) + width, 2 * width},
                                        .grad_v = {half_data(d_packed) + 2 * width, 3 * width}},
                                       current_stream());
    const PlacedKeys keys(packed, placed, width);
    unfocus(focus_of(rows, half_data(packed), 3 * width, unit), d_operands, d_packed, 0, d_unit);
    unfocus(focus_of(rows, keys.data, keys.stride, unit), d_operands, d_packed, width, d_unit);
    at::Tensor d_position, d_kernel, d_bias;
    if (placed.defined()) {
      d_position = d_packed.narrow(2, width, width).sum({0}, /*keepdim=*/true, at::kFloat);
    }
    if (kernel.defined()) {
      d_kernel = at::zeros_like(kernel);
      d_bias = at::zeros({kernel.size(0)}, kernel.options());
      differentiate_convolution(rows, packed, kernel, dy, d_packed, d_kernel, d_bias);
    }
    return {d_packed, d_position, d_unit, d_kernel, d_bias, {}, {}};
  }

 private:
  static at::Tensor convolve(const FocusedRows& rows, const at::Tensor& packed,
                             const at::Tensor& kernel, const at::Tensor& bias,
                             const at::Tensor& out) {
    at::Tensor sum = at::empty_like(out);
    if (rows.prefix > 0) sum.narrow(1, 0, rows.prefix).copy_(out.narrow(1, 0, rows.prefix));
    const std::int64_t width = rows.width;
    kernels::depthwise(
        {.shape = rows.convolution(kernel),
         .x = rows.map<const kernels::bfloat16>(half_data(packed) + 2 * width, 3 * width),
         .kernel = float_data(kernel),
         .bias = float_data(bias),
         .base = rows.map<const kernels::bfloat16>(half_data(out), width),
         .y = rows.map(half_data(sum), width)},
        current_stream());
    return sum;
  }

  /// Adds to the gradient of the values in d_packed.
  static void differentiate_convolution(const FocusedRows& rows, const at::Tensor& packed,
                                        const at::Tensor& kernel, const at::Tensor& dy,
                                        const at::Tensor& d_packed, const at::Tensor& d_kernel,
                                        const at::Tensor& d_bias) {
    const std::int64_t width = rows.width;
    const auto shape = rows.convolution(kernel);
    const auto d_out = rows.map<const kernels::bfloat16>(half_data(dy), width);
    const auto d_values = rows.map(half_data(d_packed) + 2 * width, 3 * width);
    kernels::depthwise({.shape = shape,
                        .x = d_out,
                        .kernel = float_data(kernel),
                        .flipped = true,
                        .base = {d_values.data, d_values.stride, d_values.image},
                        .y = d_values},
                       current_stream());
    const at::Tensor scratch =
        workspace(kernels::depthwise_kernel_gradient_workspace_bytes(shape), packed);
    kernels::depthwise_kernel_gradient(
        {.shape = shape,
         .x = rows.map<const kernels::bfloat16>(half_data(packed) + 2 * width, 3 * width),
         .dy = d_out,
         .d_kernel = float_data(d_kernel),
         .d_bias = float_data(d_bias)},
        scratch.data_ptr(), current_stream());
  }

  /// Through the focusing map of the operand whose columns begin at `column`.
  static void unfocus(const kernels::Focus& forward, const at::Tensor& d_operands,
                      const at::Tensor& d_packed, std::int64_t column, const at::Tensor& d_unit) {
    const std::int64_t width = forward.width;
    const at::Tensor scratch =
        workspace(kernels::focus_backward_workspace_bytes(width), d_operands);
    kernels::focus_backward({.forward = forward,
                             .dy = half_data(d_operands) + column,
                             .dy_stride = 2 * width,
                             .dx = half_data(d_packed) + column,
                             .dx_stride = 3 * width,
                             .d_scale = float_data(d_unit)},
                            scratch.data_ptr(), current_stream());
  }
};

}  // namespace

bool focused_attention_supported(std::int64_t head_dim, std::int64_t kernel_side) {
  return (head_dim == 32 || head_dim == 64) &&
         (kernel_side == 0 || kernel_side == 3 || kernel_side == 5);
}

at::Tensor focused_attention(const at::Tensor& qkv, const ops::FocusedAttention& attention) {
  return FocusedAttentionFunction::apply(qkv.contiguous(), to_optional(attention.position),
                                         attention.unit, to_optional(attention.kernel),
                                         to_optional(attention.bias), attention.heads,
                                         attention.prefix_tokens);
}

}  // namespace ablate::fused
