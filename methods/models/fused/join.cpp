#include "methods/kernels/join.h"

#include "methods/kernels/add_norm.h"
#include "methods/models/fused/common.h"
#include "methods/models/fused/fused_ops.h"
#include "runner/core/error.h"

namespace ablate::fused {
namespace {

/// What a join reads besides the streams; none of it gets a gradient through the tape.
struct JoinInputs {
  at::Tensor scale;    ///< (B) float, or undefined: 1
  at::Tensor skip;     ///< one float on the device, or undefined: 1
  at::Tensor bias;     ///< whose gradient the join adds up, or undefined
  TokenGroups groups;  ///< to be averaged, or undefined

  static JoinInputs of(const TokenStream& stream) {
    at::Tensor scale = stream.scale;
    const std::int64_t batch = stream.base.size(0);
    // Kernels read a factor a sample, also where all have one in common.
    if (scale.defined() && scale.numel() != batch) scale = scale.expand({batch, 1, 1}).contiguous();
    return {scale, stream.skip, stream.pending_bias, stream.groups};
  }
  kernels::JoinGroups join_groups() const {
    return {int_data(groups.offsets), int_data(groups.members), float_data(groups.shares)};
  }
  kernels::SkipGain gain() const { return {.value = 1.0F, .factor = float_data(skip)}; }
};

void save(AutogradContext* tape, const JoinInputs& inputs, variable_list tensors) {
  const TokenGroups& groups = inputs.groups;
  tensors.insert(tensors.end(), {inputs.scale, inputs.skip, inputs.bias, groups.offsets,
                                 groups.members, groups.shares});
  tape->save_for_backward(std::move(tensors));
}

/// The last six of what save() saved.
JoinInputs join_inputs(const variable_list& saved) {
  const auto* last = saved.data() + saved.size() - 6;
  return {last[0], last[1], last[2], {{}, last[3], last[4], last[5]}};
}

float* bias_gradient(const JoinInputs& inputs, FusedContext& context) {
  return inputs.bias.defined() ? float_data(context.at(inputs.bias).gradient) : nullptr;
}

void check_stream(const TokenStream& stream) {
  ABLATE_CHECK(stream.base.scalar_type() == at::kFloat && stream.base.dim() == 3,
               "a fused residual stream is float (B, N, C), not ", stream.base.sizes());
  ABLATE_CHECK(!stream.pending.defined() || (stream.pending.scalar_type() == at::kBFloat16 &&
                                             stream.pending.sizes() == stream.base.sizes()),
               "a fused branch is bfloat16 and shaped as its stream");
}

void check_reduced(const TokenStream& stream) {
  ABLATE_CHECK(!stream.groups.defined() && stream.first == 0,
               "reducing tokens is a part of the join with a norm behind it");
}

/// Tokens after the join.
std::int64_t tokens_left(const TokenStream& stream) {
  if (stream.groups.defined()) return stream.groups.count();
  return stream.first > 0 ? stream.first : stream.base.size(1);
}

/// The first `normalised` tokens of each sample, or that many groups, are joined and normalised.
class JoinNormFunction : public torch::autograd::Function<JoinNormFunction> {
 public:
  static variable_list forward(AutogradContext* tape, const at::Tensor& base,
                               const std::optional<at::Tensor>& pending, const at::Tensor& gamma,
                               const at::Tensor& beta, const JoinInputs& inputs, double eps,
                               std::int64_t normalised, std::int64_t context) {
    const at::Tensor branch = optional_tensor(pending);
    const std::int64_t batch = base.size(0), width = base.size(2);
    const bool changes = branch.defined() || inputs.skip.defined() ||
                         inputs.groups.offsets.defined() || normalised < base.size(1);
    at::Tensor x = changes ? at::empty({batch, normalised, width}, base.options()) : base;
    at::Tensor y = at::empty({batch, normalised, width}, base.options().dtype(at::kBFloat16));
    at::Tensor statistics = at::empty({batch * normalised, 2}, base.options());
    kernels::add_norm_forward<float>({.shape = shape(base, branch, x, normalised),
                                      .base = float_data(base),
                                      .branch = half_data(branch),
                                      .scale = float_data(inputs.scale),
                                      .skip = inputs.gain(),
                                      .groups = inputs.join_groups(),
                                      .gamma = float_data(gamma),
                                      .beta = float_data(beta),
                                      .eps = static_cast<float>(eps),
                                      .x = changes ? float_data(x) : nullptr,
                                      .y = half_data(y),
                                      .statistics = float_data(statistics)},
                                     current_stream());
    save(tape, inputs, {base, branch, gamma, beta, x, statistics});
    tape->saved_data["context"] = context;
    tape->saved_data["normalised"] = normalised;
    tape->set_materialize_grads(false);
    return {x, y};
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    FusedContext& context = to_context(tape->saved_data["context"]);
    const auto saved = tape->get_saved_variables();
    const JoinInputs inputs = join_inputs(saved);
    const at::Tensor &base = saved[0], &branch = saved[1], &gamma = saved[2], &beta = saved[3],
                     &x = saved[4], &statistics = saved[5];
    ABLATE_CHECK(gradients[1].defined(), "a normalised stream that nobody used");
    const at::Tensor dy = gradients[1].contiguous();
    const at::Tensor dx = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor();
    at::Tensor d_base = at::empty_like(base);
    at::Tensor d_branch = branch.defined() ? at::empty_like(branch) : at::Tensor();
    auto sizes = shape(base, branch, x, tape->saved_data["normalised"].toInt());
    sizes.dx = dx.defined() ? dx.size(1) : 0;
    const at::Tensor scratch =
        workspace(kernels::add_norm_backward_workspace_bytes(base.size(2)), base);
    kernels::add_norm_backward<float>({.shape = sizes,
                                       .dy = half_data(dy),
                                       .x = float_data(x),
                                       .statistics = float_data(statistics),
                                       .gamma = float_data(gamma),
                                       .dx = float_data(dx),
                                       .scale = float_data(inputs.scale),
                                       .skip = inputs.gain(),
                                       .groups = inputs.join_groups(),
                                       .d_base = float_data(d_base),
                                       .d_branch = half_data(d_branch),
                                       .d_gamma = float_data(context.at(gamma).gradient),
                                       .d_beta = float_data(context.at(beta).gradient),
                                       .d_bias = bias_gradient(inputs, context)},
                                      scratch.data_ptr(), current_stream());
    return {d_base, d_branch, {}, {}, {}, {}, {}, {}};
  }

 private:
  static kernels::AddNormShape shape(const at::Tensor& base, const at::Tensor& branch,
                                     const at::Tensor& x, std::int64_t normalised) {
    return {.batch = base.size(0),
            .width = base.size(2),
            .normalised = normalised,
            .base = base.size(1),
            .branch = branch.defined() ? branch.size(1) : 0,
            .x = x.size(1),
            .dx = 0};
  }
};

class JoinFunction : public torch::autograd::Function<JoinFunction> {
 public:
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& base,
                            const std::optional<at::Tensor>& pending, const JoinInputs& inputs,
                            std::int64_t context) {
    const at::Tensor branch = optional_tensor(pending);
    at::Tensor x = at::empty_like(base);
    kernels::join_forward<float>({.batch = base.size(0),
                                  .tokens = base.size(1),
                                  .width = base.size(2),
                                  .base = float_data(base),
                                  .branch = half_data(branch),
                                  .scale = float_data(inputs.scale),
                                  .skip = inputs.gain(),
                                  .x = float_data(x)},
                                 current_stream());
    save(tape, inputs, {branch});
    tape->saved_data["context"] = context;
    return x;
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    FusedContext& context = to_context(tape->saved_data["context"]);
    const auto saved = tape->get_saved_variables();
    const JoinInputs inputs = join_inputs(saved);
    const at::Tensor dx = gradients[0].contiguous();
    const std::int64_t batch = dx.size(0), tokens = dx.size(1), width = dx.size(2);
    at::Tensor d_base = inputs.skip.defined() ? at::empty_like(dx) : at::Tensor();
    at::Tensor d_branch = saved[0].defined() ? at::empty_like(saved[0]) : at::Tensor();
    const at::Tensor scratch =
        workspace(kernels::join_backward_workspace_bytes(batch, tokens, width), dx);
    kernels::join_backward<float>({.batch = batch,
                                   .tokens = tokens,
                                   .width = width,
                                   .dx = float_data(dx),
                                   .scale = float_data(inputs.scale),
                                   .skip = inputs.gain(),
                                   .d_base = float_data(d_base),
                                   .d_branch = half_data(d_branch),
                                   .d_bias = bias_gradient(inputs, context)},
                                  scratch.data_ptr(), current_stream());
    return {d_base.defined() ? d_base : dx, d_branch, {}, {}};
  }
};

variable_list normalise(const TokenStream& stream, std::int64_t tokens, const LayerNorm& norm,
                        FusedContext& context) {
  check_stream(stream);
  return JoinNormFunction::apply(stream.base.contiguous(), to_optional(stream.pending), norm.weight,
                                 norm.bias, JoinInputs::of(stream), norm.eps, tokens,
                                 to_number(context));
}

}  // namespace

ops::Normed join_and_norm(const TokenStream& stream, const LayerNorm& norm, FusedContext& context) {
  const auto outputs = normalise(stream, tokens_left(stream), norm, context);
  return {outputs[0], outputs[1]};
}

at::Tensor join_and_norm_first(const TokenStream& stream, std::int64_t tokens,
                               const LayerNorm& norm, FusedContext& context) {
  check_reduced(stream);
  return normalise(stream, tokens, norm, context)[1];
}

at::Tensor join(const TokenStream& stream, FusedContext& context) {
  check_stream(stream);
  check_reduced(stream);
  if (!stream.pending.defined() && !stream.skip.defined()) return stream.base;
  return JoinFunction::apply(stream.base.contiguous(), to_optional(stream.pending),
                             JoinInputs::of(stream), to_number(context));
}

}  // namespace ablate::fused
