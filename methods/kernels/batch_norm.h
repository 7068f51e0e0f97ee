#pragma once

#include <cstddef>
#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

// Batch normalisation (Ioffe and Szegedy, "Batch Normalization", ICML 2015) of bfloat16 activations
// (images, height, width, channels), with the ReLU behind it and the residual addition between. All
// tensors are dense and aligned to 16 bytes; channels are a multiple of 8. Statistics and sums are
// float.
//
// Sums are made in two stages, in an order that depends on the sizes and the number of
// multiprocessors alone: bits repeat on equal devices. Passes that reduce walk backwards, passes
// that write walk forwards: the end of a tensor just written is still in the cache, and so is the
// beginning of one just reduced.

/// Statistics are taken over each group of consecutive images by itself.
struct BatchNormShape {
  std::int64_t groups = 1;
  std::int64_t rows = 0;  ///< of one group: images x height x width
  std::int64_t channels = 0;

  std::int64_t values() const { return groups * channels; }
};

/// What is known of every channel of every group, each (groups, channels): the normalised value is
/// scale x + shift with scale = gamma rstd, shift = beta - mean scale.
struct BatchNormTables {
  float* scale = nullptr;
  float* shift = nullptr;
  float* mean = nullptr;
  float* rstd = nullptr;  ///< 1 / sqrt(variance + eps)

  static constexpr std::int64_t kCount = 4;
  /// In one piece of kCount * values() floats.
  static BatchNormTables in(float* memory, const BatchNormShape& shape) {
    return {memory, memory + shape.values(), memory + 2 * shape.values(),
            memory + 3 * shape.values()};
  }
};

/// What a pass adds to the running statistics of its step: for the groups g in order,
///   share += after * sum over g of momentum (1 - momentum)^(groups - 1 - g) s_g
/// of mean and unbiased variance.
struct RunningShare {
  double* share = nullptr;  ///< (2, channels); null: not wanted
  double momentum = 0.1;
  double after = 1.0;  ///< (1 - momentum)^(groups of the step that follow this pass)
};

/// Reads 2 bytes an element. Variances are sums of squared distances from the group's first row.
struct BatchNormStatistics {
  BatchNormShape shape{};
  const bfloat16* x = nullptr;
  const float* gamma = nullptr;  ///< (channels)
  const float* beta = nullptr;   ///< (channels)
  float eps = 1e-5F;
  BatchNormTables tables{};  ///< all written
  RunningShare running{};
};

/// For the current device; enough for batch_norm_statistics() and batch_norm_reduce().
std::size_t batch_norm_workspace_bytes(const BatchNormShape& shape);
/// `workspace` is aligned to 16 bytes, here and below.
void batch_norm_statistics(const BatchNormStatistics& arguments, void* workspace, Stream stream);

/// Scale and shift of evaluation, from running statistics; one group.
struct BatchNormEvaluation {
  std::int64_t channels = 0;
  const float* running_mean = nullptr;
  const float* running_var = nullptr;
  const float* gamma = nullptr;
  const float* beta = nullptr;
  float eps = 1e-5F;
  BatchNormTables tables{};  ///< scale and shift are written
};
void batch_norm_evaluation(const BatchNormEvaluation& arguments, Stream stream);

/// y = relu(scale x + shift + r), where r is nothing, the residual, or
/// residual_tables.scale residual + residual_tables.shift. Moves 4 or 6 bytes an element.
struct BatchNormApply {
  BatchNormShape shape{};
  const bfloat16* x = nullptr;
  BatchNormTables tables{};            ///< scale, shift
  const bfloat16* residual = nullptr;  ///< null: none
  BatchNormTables residual_tables{};   ///< scale null: the residual as it is
  bfloat16* y = nullptr;               ///< may be x or residual
  std::uint8_t* mask = nullptr;  ///< bit c % 8 of byte c / 8 of a row: y > 0; null: not wanted
};
void batch_norm_apply(const BatchNormApply& arguments, Stream stream);

/// One normalisation in a backward pass. With g the gradient of its output:
///   slope, offset  so that dx = scale g + slope x + offset
///   d_gamma += sum of g xhat, d_beta += sum of g, over all groups
struct BatchNormBranch {
  const bfloat16* x = nullptr;
  BatchNormTables tables{};  ///< of forward
  float* slope = nullptr;    ///< (groups, channels)
  float* offset = nullptr;   ///< (groups, channels)
  float* d_gamma = nullptr;  ///< (channels), added to
  float* d_beta = nullptr;   ///< (channels), added to
};

/// The first pass of the gradient of BatchNormApply, with g = dy + dy_more where y > 0, else 0.
/// Moves 4 bytes an element; 2 more for dy_more, g and the shortcut, each.
struct BatchNormReduce {
  BatchNormShape shape{};
  const bfloat16* dy = nullptr;
  const bfloat16* dy_more = nullptr;   ///< of a second reader of y; null: none
  const std::uint8_t* mask = nullptr;  ///< of forward; null: there was no residual, x tells
  bfloat16* g = nullptr;  ///< rounded; also the gradient of a plain residual. Null: not wanted;
                          ///< needed with mask or dy_more
  BatchNormBranch branch{};
  BatchNormBranch shortcut{};  ///< the normalised residual; x null: none. Needs a mask
  std::int64_t count = 0;      ///< rows behind the statistics, when others than shape.rows
};
void batch_norm_reduce(const BatchNormReduce& arguments, void* workspace, Stream stream);

/// The second pass: dx of one or both branches. Moves 6 bytes an element, 4 more with the shortcut.
struct BatchNormInputGradient {
  BatchNormShape shape{};
  const bfloat16* g = nullptr;   ///< of the first pass, or
  const bfloat16* dy = nullptr;  ///< the gradient of y where the first pass wrote no g
  BatchNormBranch branch{};
  bfloat16* dx = nullptr;  ///< may be g, dy or x
  BatchNormBranch shortcut{};
  bfloat16* d_shortcut = nullptr;  ///< not the place of an input
};
void batch_norm_input_gradient(const BatchNormInputGradient& arguments, Stream stream);

namespace reference {
void batch_norm_statistics(const BatchNormStatistics& arguments);
void batch_norm_evaluation(const BatchNormEvaluation& arguments);
void batch_norm_apply(const BatchNormApply& arguments);
void batch_norm_reduce(const BatchNormReduce& arguments);
void batch_norm_input_gradient(const BatchNormInputGradient& arguments);
}  // namespace reference

}  // namespace ablate::kernels
