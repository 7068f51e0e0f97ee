#include "methods/kernels/batch_norm.h"

#include <algorithm>
#include <cmath>

namespace ablate::kernels::reference {
namespace {

/// Calls visit(group, channel, table index).
template <typename Visit>
void for_each_channel(const BatchNormShape& shape, const Visit& visit) {
  for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
    for (std::int64_t group = 0; group < shape.groups; ++group) {
      visit(group, channel, group * shape.channels + channel);
    }
  }
}

std::int64_t element(const BatchNormShape& shape, std::int64_t group, std::int64_t row,
                     std::int64_t channel) {
  return (group * shape.rows + row) * shape.channels + channel;
}

struct ChannelMoments {
  double mean = 0.0, variance = 0.0;
};

ChannelMoments moments_of(const BatchNormStatistics& a, std::int64_t group, std::int64_t channel) {
  const auto count = static_cast<double>(a.shape.rows);
  ChannelMoments moments;
  for (std::int64_t row = 0; row < a.shape.rows; ++row) {
    moments.mean += to_float(a.x[element(a.shape, group, row, channel)]) / count;
  }
  for (std::int64_t row = 0; row < a.shape.rows; ++row) {
    const double distance = to_float(a.x[element(a.shape, group, row, channel)]) - moments.mean;
    moments.variance += distance * distance / count;
  }
  return moments;
}

void write_scale_and_shift(const BatchNormTables& tables, std::int64_t at,
                           const ChannelMoments& moments, float gamma, float beta, float eps) {
  const double scale = gamma / std::sqrt(moments.variance + eps);
  tables.scale[at] = static_cast<float>(scale);
  tables.shift[at] = static_cast<float>(beta - moments.mean * scale);
}

/// The value before the ReLU.
float normalised(bfloat16 x, const BatchNormTables& tables, std::int64_t at) {
  return std::fma(to_float(x), tables.scale[at], tables.shift[at]);
}

bool gate(const BatchNormReduce& a, std::int64_t at, std::int64_t table) {
  if (a.mask == nullptr) return normalised(a.branch.x[at], a.branch.tables, table) > 0.0F;
  return ((a.mask[at / 8] >> (at % 8)) & 1) != 0;
}

float gated(const BatchNormReduce& a, std::int64_t at, std::int64_t table) {
  if (!gate(a, at, table)) return 0.0F;
  if (a.dy_more == nullptr) return to_float(a.dy[at]);
  return to_float(from_float<bfloat16>(to_float(a.dy[at]) + to_float(a.dy_more[at])));
}

void reduce_branch(const BatchNormReduce& a, const BatchNormBranch& branch) {
  const auto count = static_cast<double>(a.count > 0 ? a.count : a.shape.rows);
  for_each_channel(a.shape, [&](std::int64_t group, std::int64_t channel, std::int64_t table) {
    const double mean = branch.tables.mean[table], rstd = branch.tables.rstd[table];
    double sum = 0.0, sum_xhat = 0.0;
    for (std::int64_t row = 0; row < a.shape.rows; ++row) {
      const std::int64_t at = element(a.shape, group, row, channel);
      const double g = gated(a, at, table);
      sum += g;
      sum_xhat += g * (to_float(branch.x[at]) - mean) * rstd;
    }
    const double scale = branch.tables.scale[table];
    const double slope = -scale * rstd * sum_xhat / count;
    branch.slope[table] = static_cast<float>(slope);
    branch.offset[table] = static_cast<float>(-scale * sum / count - slope * mean);
    branch.d_gamma[channel] += static_cast<float>(sum_xhat);
    branch.d_beta[channel] += static_cast<float>(sum);
  });
}

bfloat16 input_gradient(const BatchNormBranch& branch, float g, std::int64_t at,
                        std::int64_t table) {
  const double dx = static_cast<double>(branch.tables.scale[table]) * g +
                    static_cast<double>(branch.slope[table]) * to_float(branch.x[at]) +
                    branch.offset[table];
  return from_float<bfloat16>(static_cast<float>(dx));
}

}  // namespace

void batch_norm_statistics(const BatchNormStatistics& a) {
  const double keep = 1.0 - a.running.momentum;
  const auto count = static_cast<double>(a.shape.rows);
  for_each_channel(a.shape, [&](std::int64_t group, std::int64_t channel, std::int64_t at) {
    const ChannelMoments moments = moments_of(a, group, channel);
    write_scale_and_shift(a.tables, at, moments, a.gamma[channel], a.beta[channel], a.eps);
    a.tables.mean[at] = static_cast<float>(moments.mean);
    a.tables.rstd[at] = static_cast<float>(1.0 / std::sqrt(moments.variance + a.eps));
    if (a.running.share == nullptr) return;
    const double weight = a.running.after * a.running.momentum *
                          std::pow(keep, static_cast<double>(a.shape.groups - 1 - group));
    a.running.share[channel] += weight * moments.mean;
    a.running.share[a.shape.channels + channel] +=
        weight * moments.variance * count / (count - 1.0);
  });
}

void batch_norm_evaluation(const BatchNormEvaluation& a) {
  for (std::int64_t channel = 0; channel < a.channels; ++channel) {
    write_scale_and_shift(a.tables, channel, {a.running_mean[channel], a.running_var[channel]},
                          a.gamma[channel], a.beta[channel], a.eps);
  }
}

void batch_norm_apply(const BatchNormApply& a) {
  const std::int64_t bytes = a.shape.groups * a.shape.rows * a.shape.channels / 8;
  if (a.mask != nullptr) std::fill_n(a.mask, bytes, std::uint8_t{0});
  for_each_channel(a.shape, [&](std::int64_t group, std::int64_t channel, std::int64_t table) {
    for (std::int64_t row = 0; row < a.shape.rows; ++row) {
      const std::int64_t at = element(a.shape, group, row, channel);
      float value = normalised(a.x[at], a.tables, table);
      if (a.residual != nullptr) {
        value += a.residual_tables.scale != nullptr
                     ? normalised(a.residual[at], a.residual_tables, table)
                     : to_float(a.residual[at]);
      }
      if (a.mask != nullptr && value > 0.0F) {
        a.mask[at / 8] = static_cast<std::uint8_t>(a.mask[at / 8] | (1U << (at % 8)));
      }
      a.y[at] = from_float<bfloat16>(value < 0.0F ? 0.0F : value);
    }
  });
}

void batch_norm_reduce(const BatchNormReduce& a) {
  reduce_branch(a, a.branch);
  if (a.shortcut.x != nullptr) reduce_branch(a, a.shortcut);
  if (a.g == nullptr) return;
  for_each_channel(a.shape, [&](std::int64_t group, std::int64_t channel, std::int64_t table) {
    for (std::int64_t row = 0; row < a.shape.rows; ++row) {
      const std::int64_t at = element(a.shape, group, row, channel);
      a.g[at] = from_float<bfloat16>(gated(a, at, table));
    }
  });
}

void batch_norm_input_gradient(const BatchNormInputGradient& a) {
  for_each_channel(a.shape, [&](std::int64_t group, std::int64_t channel, std::int64_t table) {
    for (std::int64_t row = 0; row < a.shape.rows; ++row) {
      const std::int64_t at = element(a.shape, group, row, channel);
      float g = to_float(a.g != nullptr ? a.g[at] : a.dy[at]);
      if (a.g == nullptr && !(normalised(a.branch.x[at], a.branch.tables, table) > 0.0F)) g = 0.0F;
      if (a.shortcut.x != nullptr) a.d_shortcut[at] = input_gradient(a.shortcut, g, at, table);
      a.dx[at] = input_gradient(a.branch, g, at, table);
    }
  });
}

}  // namespace ablate::kernels::reference
