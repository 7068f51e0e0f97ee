#include "methods/models/batch_norm.h"

#include <cmath>

#include "methods/kernels/batch_norm_pool.h"
#include "methods/models/fused/common.h"
#include "methods/models/fused/fused_ops.h"
#include "runner/core/error.h"

namespace ablate::fused {
namespace {

constexpr auto kMapFormat = at::MemoryFormat::ChannelsLast;

/// Of a map whose groups have the tables.
kernels::BatchNormShape norm_shape(const at::Tensor& x, const at::Tensor& tables) {
  const std::int64_t channels = x.size(1),
                     groups = tables.numel() / (kernels::BatchNormTables::kCount * channels);
  return {groups, x.numel() / channels / groups, channels};
}

kernels::BatchNormTables tables_in(const at::Tensor& tables, const kernels::BatchNormShape& shape) {
  return kernels::BatchNormTables::in(float_data(tables), shape);
}

at::Tensor empty_tables(const at::Tensor& x, std::int64_t groups) {
  return at::empty({kernels::BatchNormTables::kCount, groups, x.size(1)},
                   x.options().dtype(at::kFloat).memory_format(at::MemoryFormat::Contiguous));
}

at::Tensor evaluation_tables(const at::Tensor& x, const GroupBatchNorm2d& norm) {
  const at::Tensor tables = empty_tables(x, 1);
  kernels::batch_norm_evaluation({.channels = x.size(1),
                                  .running_mean = float_data(norm.running_mean),
                                  .running_var = float_data(norm.running_var),
                                  .gamma = float_data(norm.weight),
                                  .beta = float_data(norm.bias),
                                  .eps = GroupBatchNorm2d::kEps,
                                  .tables = tables_in(tables, {1, 1, x.size(1)})},
                                 current_stream());
  return tables;
}

/// Statistics of the pass, or of training when the norm evaluates.
at::Tensor make_tables(const at::Tensor& x, const GroupBatchNorm2d& norm,
                       const ForwardState& state) {
  ABLATE_CHECK(x.scalar_type() == at::kBFloat16 && x.is_cuda() && x.is_contiguous(kMapFormat),
               "a fused BatchNorm takes bfloat16 maps in channels-last order on a CUDA device");
  if (!norm.is_training()) {
    ABLATE_CHECK(!at::GradMode::is_enabled(), "a fused BatchNorm that evaluates has no gradient");
    return evaluation_tables(x, norm);
  }
  ABLATE_CHECK(state.norm_shares, "a fused BatchNorm in training needs a DeviceNorms");
  const GroupSpan span = norm.span_of(x.size(0), state);
  if (!span.local) {
    throw SpecError(cat("kernels = \"fused\": BatchNorm groups of ", span.group,
                        " images over passes of ", x.size(0),
                        ": choose a bn_group that divides the images of a pass on one rank"));
  }
  const std::int64_t groups = x.size(0) / span.group;
  const at::Tensor tables = empty_tables(x, groups);
  const kernels::BatchNormShape shape = norm_shape(x, tables);
  const at::Tensor scratch = workspace(kernels::batch_norm_workspace_bytes(shape), tables);
  const auto later = static_cast<double>(span.groups_in_step - span.first - groups);
  kernels::batch_norm_statistics(
      {.shape = shape,
       .x = half_data(x),
       .gamma = float_data(norm.weight),
       .beta = float_data(norm.bias),
       .eps = GroupBatchNorm2d::kEps,
       .tables = tables_in(tables, shape),
       .running = {.share = state.norm_shares->at(&norm).data_ptr<double>(),
                   .momentum = GroupBatchNorm2d::kMomentum,
                   .after = std::pow(1.0 - GroupBatchNorm2d::kMomentum, later)}},
      scratch.data_ptr(), current_stream());
  return tables;
}

/// The same data as another output of a Function, so that it has a gradient of its own.
at::Tensor second_reader(const at::Tensor& y) { return y.variable_data(); }

/// A normalisation on its way back: where its results go.
struct BackwardBranch {
  BackwardBranch(const at::Tensor& map, const at::Tensor& known, const at::Tensor& gamma,
                 const at::Tensor& beta, FusedContext& context)
      : x(map),
        shape(norm_shape(map, known)),
        results(at::empty({2, shape.values()}, known.options())),
        kernel{.x = half_data(map),
               .tables = tables_in(known, shape),
               .slope = float_data(results),
               .offset = float_data(results) + shape.values(),
               .d_gamma = float_data(context.at(gamma).gradient),
               .d_beta = float_data(context.at(beta).gradient)} {}

  at::Tensor x;
  kernels::BatchNormShape shape;
  at::Tensor results;
  kernels::BatchNormBranch kernel;
};

/// Gradients of the one or two readers of an output.
struct ReaderGradients {
  explicit ReaderGradients(const variable_list& gradients) {
    for (const at::Tensor& gradient : gradients) {
      if (!gradient.defined()) continue;
      (first.defined() ? second : first) = gradient.contiguous(kMapFormat);
    }
  }

  at::Tensor first, second;
};

struct BatchNormReluFunction : torch::autograd::Function<BatchNormReluFunction> {
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, const at::Tensor& tables, std::int64_t number) {
    const auto shape = norm_shape(x, tables);
    at::Tensor y = at::empty_like(x);
    kernels::batch_norm_apply(
        {.shape = shape, .x = half_data(x), .tables = tables_in(tables, shape), .y = half_data(y)},
        current_stream());
    tape->save_for_backward({x, weight, bias, tables});
    tape->saved_data["context"] = number;
    return y;
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    FusedContext& context = to_context(tape->saved_data["context"]);
    const auto saved = tape->get_saved_variables();
    const BackwardBranch branch(saved[0], saved[3], saved[1], saved[2], context);
    const at::Tensor dy = gradients[0].contiguous(kMapFormat);
    const at::Tensor scratch =
        workspace(kernels::batch_norm_workspace_bytes(branch.shape), branch.results);
    kernels::batch_norm_reduce(
        {.shape = branch.shape, .dy = half_data(dy), .branch = branch.kernel}, scratch.data_ptr(),
        current_stream());
    at::Tensor dx = at::empty_like(branch.x);
    kernels::batch_norm_input_gradient(
        {.shape = branch.shape, .dy = half_data(dy), .branch = branch.kernel, .dx = half_data(dx)},
        current_stream());
    return {dx, {}, {}, {}, {}};
  }
};

struct BatchNormJoinFunction : torch::autograd::Function<BatchNormJoinFunction> {
  /// With a normalised shortcut its weight, bias and tables; `recorded`: backward will come.
  static variable_list forward(AutogradContext* tape, const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& bias, const at::Tensor& tables,
                               const at::Tensor& shortcut,
                               const std::optional<at::Tensor>& shortcut_weight,
                               const std::optional<at::Tensor>& shortcut_bias,
                               const std::optional<at::Tensor>& shortcut_tables, bool recorded,
                               std::int64_t number) {
    const auto shape = norm_shape(x, tables);
    const at::Tensor other = optional_tensor(shortcut_tables);
    at::Tensor y = at::empty_like(x), mask;
    if (recorded) mask = workspace(static_cast<std::size_t>(x.numel() / 8), tables);
    kernels::batch_norm_apply(
        {.shape = shape,
         .x = half_data(x),
         .tables = tables_in(tables, shape),
         .residual = half_data(shortcut),
         .residual_tables = other.defined() ? tables_in(other, shape) : kernels::BatchNormTables{},
         .y = half_data(y),
         .mask = recorded ? mask.data_ptr<std::uint8_t>() : nullptr},
        current_stream());
    tape->set_materialize_grads(false);
    tape->save_for_backward(
        {x, weight, bias, tables, mask, other.defined() ? shortcut : at::Tensor(),
         optional_tensor(shortcut_weight), optional_tensor(shortcut_bias), other});
    tape->saved_data["context"] = number;
    return {y, second_reader(y)};
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    FusedContext& context = to_context(tape->saved_data["context"]);
    const auto saved = tape->get_saved_variables();
    const BackwardBranch branch(saved[0], saved[3], saved[1], saved[2], context);
    std::optional<BackwardBranch> shortcut;
    if (saved[5].defined()) shortcut.emplace(saved[5], saved[8], saved[6], saved[7], context);
    const kernels::BatchNormBranch other = shortcut ? shortcut->kernel : kernels::BatchNormBranch{};
    const ReaderGradients dy(gradients);
    at::Tensor g = at::empty_like(branch.x);
    const at::Tensor scratch =
        workspace(kernels::batch_norm_workspace_bytes(branch.shape), branch.results);
    kernels::batch_norm_reduce({.shape = branch.shape,
                                .dy = half_data(dy.first),
                                .dy_more = half_data(dy.second),
                                .mask = saved[4].const_data_ptr<std::uint8_t>(),
                                .g = half_data(g),
                                .branch = branch.kernel,
                                .shortcut = other},
                               scratch.data_ptr(), current_stream());
    at::Tensor dx = at::empty_like(branch.x), d_shortcut;
    if (shortcut) d_shortcut = at::empty_like(branch.x);
    kernels::batch_norm_input_gradient({.shape = branch.shape,
                                        .g = half_data(g),
                                        .branch = branch.kernel,
                                        .dx = half_data(dx),
                                        .shortcut = other,
                                        .d_shortcut = half_data(d_shortcut)},
                                       current_stream());
    return {dx, {}, {}, {}, shortcut ? d_shortcut : g, {}, {}, {}, {}, {}};
  }
};

kernels::PoolShape pool_shape(const at::Tensor& x, const kernels::BatchNormShape& shape) {
  return {.batch = x.size(0),
          .height = x.size(2),
          .width = x.size(3),
          .channels = shape.channels,
          .groups = shape.groups};
}

struct BatchNormPoolFunction : torch::autograd::Function<BatchNormPoolFunction> {
  static variable_list forward(AutogradContext* tape, const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& bias, const at::Tensor& tables, bool recorded,
                               std::int64_t number) {
    const auto shape = pool_shape(x, norm_shape(x, tables));
    at::Tensor y = at::empty({shape.batch, shape.channels, kernels::PoolShape::pooled(shape.height),
                              kernels::PoolShape::pooled(shape.width)},
                             x.options().memory_format(kMapFormat));
    at::Tensor selected, taps;
    if (recorded) {
      selected = at::empty_like(y);
      taps = workspace(static_cast<std::size_t>(y.numel()), tables);
    }
    kernels::batch_norm_pool({.shape = shape,
                              .x = half_data(x),
                              .tables = tables_in(tables, shape.rows()),
                              .y = half_data(y),
                              .selected = half_data(selected),
                              .taps = recorded ? taps.data_ptr<std::uint8_t>() : nullptr},
                             current_stream());
    tape->set_materialize_grads(false);
    tape->save_for_backward({x, weight, bias, tables, selected, taps});
    tape->saved_data["context"] = number;
    return {y, second_reader(y)};
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    FusedContext& context = to_context(tape->saved_data["context"]);
    const auto saved = tape->get_saved_variables();
    const at::Tensor &x = saved[0], &selected = saved[4];
    BackwardBranch branch(x, saved[3], saved[1], saved[2], context);
    const auto shape = pool_shape(x, branch.shape);
    const kernels::BatchNormShape pooled = shape.pooled_rows();
    const ReaderGradients dy(gradients);
    at::Tensor g = at::empty_like(selected);
    const at::Tensor scratch = workspace(kernels::batch_norm_workspace_bytes(pooled), saved[3]);
    kernels::BatchNormBranch chosen = branch.kernel;
    chosen.x = half_data(selected);
    kernels::batch_norm_reduce({.shape = pooled,
                                .dy = half_data(dy.first),
                                .dy_more = half_data(dy.second),
                                .g = half_data(g),
                                .branch = chosen,
                                .count = branch.shape.rows},
                               scratch.data_ptr(), current_stream());
    at::Tensor dx = at::empty_like(x);
    kernels::batch_norm_pool_input_gradient({.shape = shape,
                                             .g = half_data(g),
                                             .taps = saved[5].const_data_ptr<std::uint8_t>(),
                                             .branch = branch.kernel,
                                             .dx = half_data(dx)},
                                            current_stream());
    return {dx, {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor batch_norm_relu(const at::Tensor& x, GroupBatchNorm2d& norm, const ForwardState& state) {
  const at::Tensor tables = make_tables(x, norm, state);
  return BatchNormReluFunction::apply(x, norm.weight, norm.bias, tables, to_number(*state.fused));
}

ops::Fork batch_norm_add_relu(const at::Tensor& x, GroupBatchNorm2d& norm,
                              const ops::Shortcut& shortcut, const ForwardState& state) {
  ABLATE_CHECK(shortcut.x.sizes() == x.sizes() && shortcut.x.scalar_type() == at::kBFloat16,
               "a shortcut of ", shortcut.x.sizes(), " to ", x.sizes());
  const at::Tensor tables = make_tables(x, norm, state);
  std::optional<at::Tensor> weight, bias, other;
  if (shortcut.norm) {
    other = make_tables(shortcut.x, *shortcut.norm, state);
    weight = shortcut.norm->weight;
    bias = shortcut.norm->bias;
  }
  const auto y = BatchNormJoinFunction::apply(
      x, norm.weight, norm.bias, tables, shortcut.x.contiguous(kMapFormat), weight, bias, other,
      at::GradMode::is_enabled(), to_number(*state.fused));
  return {y[0], y[1]};
}

ops::Fork batch_norm_relu_pool(const at::Tensor& x, GroupBatchNorm2d& norm,
                               const ForwardState& state) {
  const at::Tensor tables = make_tables(x, norm, state);
  const auto y = BatchNormPoolFunction::apply(x, norm.weight, norm.bias, tables,
                                              at::GradMode::is_enabled(), to_number(*state.fused));
  return {y[0], y[1]};
}

}  // namespace ablate::fused
