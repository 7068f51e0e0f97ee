#include "methods/kernels/add_norm.h"

#include <cmath>
#include <vector>

namespace ablate::kernels::reference {
namespace {

double gain_of(const SkipGain& skip) {
  return static_cast<double>(skip.value) * (skip.factor == nullptr ? 1.0 : *skip.factor);
}

double scale_of(const float* scale, std::int64_t sample) {
  return scale == nullptr ? 1.0 : scale[sample];
}

/// A token that takes part in a row.
struct Part {
  std::int64_t token;
  double share;
};

/// The tokens of row `token` of x: itself, or the members of a group.
std::vector<Part> parts_of(const JoinGroups& groups, const AddNormShape& shape, std::int64_t sample,
                           std::int64_t token) {
  if (groups.offsets == nullptr) return {{token, 1.0}};
  const std::int32_t* offsets = groups.offsets + sample * (shape.normalised + 1) + token;
  std::vector<Part> parts;
  for (std::int32_t i = offsets[0]; i < offsets[1]; ++i) {
    const std::int64_t member = groups.members[sample * shape.base + i];
    parts.push_back({member, groups.shares[sample * shape.base + member]});
  }
  return parts;
}

/// Element c of a row before it is rounded.
template <typename R>
double joined(const AddNormForward<R>& arguments, std::int64_t sample,
              const std::vector<Part>& parts, std::int64_t c) {
  const AddNormShape& shape = arguments.shape;
  double sum = 0.0;
  for (const auto& [token, share] : parts) {
    double value = gain_of(arguments.skip) *
                   to_float(arguments.base[(sample * shape.base + token) * shape.width + c]);
    if (arguments.branch != nullptr) {
      value += scale_of(arguments.scale, sample) *
               to_float(arguments.branch[(sample * shape.branch + token) * shape.width + c]);
    }
    sum += share * value;
  }
  return sum;
}

struct Moments {
  double mean, rstd;
};

Moments moments_of(const std::vector<double>& row, double eps) {
  const auto width = static_cast<double>(row.size());
  double sum = 0.0;
  for (const double value : row) sum += value;
  const double mean = sum / width;
  double squares = 0.0;
  for (const double value : row) squares += (value - mean) * (value - mean);
  return {mean, 1.0 / std::sqrt(squares / width + eps)};
}

/// Adds `sums` to what stands there.
void accumulate(float* to, const std::vector<double>& sums) {
  if (to == nullptr) return;
  for (std::size_t c = 0; c < sums.size(); ++c) to[c] = static_cast<float>(to[c] + sums[c]);
}

/// Gradient at x of one normalised row, and what it adds to those of gamma and beta.
template <typename R>
std::vector<double> norm_gradient(const AddNormBackward<R>& arguments, std::int64_t normalised_row,
                                  const R* x, std::vector<double>& d_gamma,
                                  std::vector<double>& d_beta) {
  const auto width = static_cast<std::size_t>(arguments.shape.width);
  const bfloat16* dy = arguments.dy + normalised_row * arguments.shape.width;
  const double mean = arguments.statistics[2 * normalised_row];
  const double rstd = arguments.statistics[2 * normalised_row + 1];
  std::vector<double> xhat(width), weighted(width);
  double sum = 0.0, projection = 0.0;
  for (std::size_t c = 0; c < width; ++c) {
    const double gradient = to_float(dy[c]);
    xhat[c] = (to_float(x[c]) - mean) * rstd;
    weighted[c] = gradient * arguments.gamma[c];
    d_gamma[c] += gradient * xhat[c];
    d_beta[c] += gradient;
    sum += weighted[c];
    projection += weighted[c] * xhat[c];
  }
  const double count = static_cast<double>(width);
  for (std::size_t c = 0; c < width; ++c) {
    weighted[c] = rstd * (weighted[c] - sum / count - xhat[c] * projection / count);
  }
  return weighted;
}

}  // namespace

template <typename R>
void add_norm_forward(const AddNormForward<R>& arguments) {
  const AddNormShape& shape = arguments.shape;
  std::vector<double> row(static_cast<std::size_t>(shape.width));
  for (std::int64_t i = 0; i < shape.batch * shape.normalised; ++i) {
    const std::int64_t sample = i / shape.normalised, token = i % shape.normalised;
    const std::vector<Part> parts = parts_of(arguments.groups, shape, sample, token);
    const std::int64_t x = (sample * shape.x + token) * shape.width;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const auto column = static_cast<std::int64_t>(c);
      const R rounded = from_float<R>(static_cast<float>(joined(arguments, sample, parts, column)));
      if (arguments.x != nullptr) arguments.x[x + column] = rounded;
      row[c] = to_float(rounded);
    }
    const Moments moments = moments_of(row, arguments.eps);
    if (arguments.statistics != nullptr) {
      arguments.statistics[2 * i] = static_cast<float>(moments.mean);
      arguments.statistics[2 * i + 1] = static_cast<float>(moments.rstd);
    }
    for (std::size_t c = 0; c < row.size(); ++c) {
      const double y =
          (row[c] - moments.mean) * moments.rstd * arguments.gamma[c] + arguments.beta[c];
      arguments.y[i * shape.width + static_cast<std::int64_t>(c)] =
          from_float<bfloat16>(static_cast<float>(y));
    }
  }
}

template <typename R>
void add_norm_backward(const AddNormBackward<R>& arguments) {
  const AddNormShape& shape = arguments.shape;
  const auto width = static_cast<std::size_t>(shape.width);
  const double skip = gain_of(arguments.skip);
  std::vector<double> d_gamma(width), d_beta(width), d_bias(width);
  const std::int64_t rows = arguments.groups.offsets == nullptr ? shape.base : shape.normalised;
  for (std::int64_t i = 0; i < shape.batch * rows; ++i) {
    const std::int64_t sample = i / rows, token = i % rows;
    const std::vector<Part> parts = parts_of(arguments.groups, shape, sample, token);
    std::vector<double> gradient(width);
    if (token < shape.normalised) {
      gradient =
          norm_gradient(arguments, sample * shape.normalised + token,
                        arguments.x + (sample * shape.x + token) * shape.width, d_gamma, d_beta);
    }
    const std::int64_t incoming = (sample * shape.dx + token) * shape.width;
    for (std::size_t c = 0; c < width; ++c) {
      const auto column = static_cast<std::int64_t>(c);
      if (arguments.dx != nullptr && token < shape.dx) {
        gradient[c] += to_float(arguments.dx[incoming + column]);
      }
      for (const auto& [part, share] : parts) {
        arguments.d_base[(sample * shape.base + part) * shape.width + column] =
            from_float<R>(static_cast<float>(skip * share * gradient[c]));
        if (arguments.d_branch == nullptr || part >= shape.branch) continue;
        const double d_branch = scale_of(arguments.scale, sample) * share * gradient[c];
        arguments.d_branch[(sample * shape.branch + part) * shape.width + column] =
            from_float<bfloat16>(static_cast<float>(d_branch));
        d_bias[c] += d_branch;
      }
    }
  }
  accumulate(arguments.d_gamma, d_gamma);
  accumulate(arguments.d_beta, d_beta);
  accumulate(arguments.d_bias, d_bias);
}

template void add_norm_forward(const AddNormForward<float>&);
template void add_norm_forward(const AddNormForward<bfloat16>&);
template void add_norm_backward(const AddNormBackward<float>&);
template void add_norm_backward(const AddNormBackward<bfloat16>&);

}  // namespace ablate::kernels::reference
