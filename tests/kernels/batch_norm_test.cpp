#include "methods/kernels/batch_norm.h"

#include <cmath>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "methods/kernels/running_statistics.h"
#include "runner/core/error.h"
#include "tests/kernels/batch_norm_cases.h"
#include "tests/kernels/device_buffer.h"

namespace ablate::kernels {
namespace {

using test::all_close;
using test::elements;
using test::HostTables;
using test::NormInputs;

std::vector<bfloat16> halves(const std::vector<float>& values) {
  std::vector<bfloat16> result;
  for (const float value : values) result.push_back(from_float<bfloat16>(value));
  return result;
}

TEST(BatchNorm, StatisticsAreThoseOfEachGroup) {
  // Two groups of four rows, eight channels of which the first two are looked at.
  const BatchNormShape shape{.groups = 2, .rows = 4, .channels = 8};
  std::vector<bfloat16> x(64);
  for (int i = 0; i < 4; ++i) {
    x[static_cast<std::size_t>(8 * i)] = from_float<bfloat16>(static_cast<float>(i + 1));
    x[static_cast<std::size_t>(32 + 8 * i)] = from_float<bfloat16>(static_cast<float>(4 * i));
  }
  const std::vector<float> gamma(8, 2.0F), beta(8, 0.5F);
  HostTables host(shape);
  const auto tables = host.tables();
  std::vector<double> share(16, 1.0);
  reference::batch_norm_statistics({.shape = shape,
                                    .x = x.data(),
                                    .gamma = gamma.data(),
                                    .beta = beta.data(),
                                    .eps = 0.25F,
                                    .tables = tables,
                                    .running = {.share = share.data(), .after = 0.5}});
  // 1 2 3 4: mean 2.5, variance 1.25; 0 4 8 12: mean 6, variance 20.
  EXPECT_FLOAT_EQ(tables.mean[0], 2.5F);
  EXPECT_FLOAT_EQ(tables.mean[8], 6.0F);
  EXPECT_FLOAT_EQ(tables.rstd[0], 1.0F / std::sqrt(1.5F));
  EXPECT_FLOAT_EQ(tables.scale[8], 2.0F / std::sqrt(20.25F));
  EXPECT_FLOAT_EQ(tables.shift[8], 0.5F - 6.0F * 2.0F / std::sqrt(20.25F));
  EXPECT_FLOAT_EQ(tables.shift[1], 0.5F);
  // Momentum 0.1, group 1 after group 0, unbiased variances 5/3 and 80/3, half of it left later.
  EXPECT_NEAR(share[0], 1.0 + 0.5 * 0.1 * (0.9 * 2.5 + 6.0), 1e-12);
  EXPECT_NEAR(share[8], 1.0 + 0.5 * 0.1 * (0.9 * 5.0 / 3.0 + 80.0 / 3.0), 1e-12);
}

TEST(BatchNorm, RunningStatisticsFollowOnlyWhenFinite) {
  std::vector<float> mean{1.0F, 2.0F}, var{3.0F, 4.0F};
  const std::vector<double> share{0.5, 0.25, 0.125, 1.0};
  std::int64_t batches = 5;
  const RunningStatistics entry{.mean = mean.data(),
                                .var = var.data(),
                                .batches = &batches,
                                .share = share.data(),
                                .channels = 2,
                                .groups = 3,
                                .keep = 0.5};
  std::int32_t finite = 0;
  reference::update_running_statistics({.entries = &entry, .count = 1, .finite = &finite});
  EXPECT_EQ(mean, (std::vector<float>{1.0F, 2.0F}));
  EXPECT_EQ(batches, 5);
  finite = 1;
  reference::update_running_statistics({.entries = &entry, .count = 1, .finite = &finite});
  EXPECT_EQ(mean, (std::vector<float>{1.0F, 1.25F}));
  EXPECT_EQ(var, (std::vector<float>{1.625F, 3.0F}));
  EXPECT_EQ(batches, 8);
}

TEST(BatchNorm, ApplyAddsTheResidualBeforeTheReluAndKeepsNan) {
  const BatchNormShape shape{.groups = 1, .rows = 1, .channels = 8};
  HostTables host(shape), other(shape);
  for (std::size_t c = 0; c < 8; ++c) {
    host.tables().scale[c] = 2.0F;
    host.tables().shift[c] = -1.0F;
    other.tables().scale[c] = 10.0F;
    other.tables().shift[c] = 1.0F;
  }
  const auto x = halves({0, 1, -2, 0.5F, NAN, 3, 3, 3}), r = halves({2, 2, 2, 0, 0, -9, -5, -4});
  std::vector<bfloat16> y(8);
  std::uint8_t mask = 0xff;
  BatchNormApply arguments{.shape = shape, .x = x.data(), .tables = host.tables(), .y = y.data()};
  reference::batch_norm_apply(arguments);
  const auto plain = test::as_floats(y);
  EXPECT_EQ((std::vector<float>{plain.begin(), plain.begin() + 4}),
            (std::vector<float>{0, 1, 0, 0}));
  EXPECT_TRUE(std::isnan(plain[4]));
  arguments.residual = r.data();
  arguments.mask = &mask;
  reference::batch_norm_apply(arguments);
  const auto added = test::as_floats(y);
  EXPECT_EQ((std::vector<float>{added.begin() + 5, added.end()}), (std::vector<float>{0, 0, 1}));
  EXPECT_EQ(mask, 0b10000011);
  arguments.residual_tables = other.tables();
  reference::batch_norm_apply(arguments);
  EXPECT_EQ(to_float(y[0]), 20.0F);  // -1 + 21
}

/// sum of dy relu(gamma (x - mean) / sqrt(var + eps) + beta + residual) over one channel, in
/// double, where the residual is a second channel normalised alike or taken as it is.
double channel_loss(const std::vector<double>& x, const std::vector<double>& residual,
                    const std::vector<double>& dy, double gamma, double beta) {
  double mean = 0.0, variance = 0.0, loss = 0.0;
  const auto count = static_cast<double>(x.size());
  for (const double v : x) mean += v / count;
  for (const double v : x) variance += (v - mean) * (v - mean) / count;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double y = gamma * (x[i] - mean) / std::sqrt(variance + 1e-5F) + beta + residual[i];
    loss += dy[i] * std::max(y, 0.0);
  }
  return loss;
}

double slope_of(const std::function<double(double)>& f) {
  constexpr double kStep = 1e-6;
  return (f(kStep) - f(-kStep)) / (2 * kStep);
}

TEST(BatchNorm, ReferenceGradientIsTheDerivative) {
  const BatchNormShape shape{.groups = 1, .rows = 11, .channels = 8};
  NormInputs inputs(shape);
  const auto residual = test::normal_values<bfloat16>(elements(shape), 7);
  const auto dy = test::normal_values<bfloat16>(elements(shape), 8);
  std::vector<bfloat16> y(elements(shape)), g(elements(shape)), dx(elements(shape));
  std::vector<std::uint8_t> mask(elements(shape) / 8);
  reference::batch_norm_apply({.shape = shape,
                               .x = inputs.x.data(),
                               .tables = inputs.known.tables(),
                               .residual = residual.data(),
                               .y = y.data(),
                               .mask = mask.data()});
  std::vector<float> slope(8), offset(8), d_gamma(8, 1.0F), d_beta(8, 2.0F);
  const BatchNormBranch branch{inputs.x.data(), inputs.known.tables(), slope.data(),
                               offset.data(),   d_gamma.data(),        d_beta.data()};
  reference::batch_norm_reduce(
      {.shape = shape, .dy = dy.data(), .mask = mask.data(), .g = g.data(), .branch = branch});
  reference::batch_norm_input_gradient(
      {.shape = shape, .g = g.data(), .branch = branch, .dx = dx.data()});
  for (const std::size_t c : {1, 2, 3, 4, 6}) {
    std::vector<double> x, r, up;
    for (std::size_t row = 0; row < 11; ++row) {
      x.push_back(to_float(inputs.x[8 * row + c]));
      r.push_back(to_float(residual[8 * row + c]));
      up.push_back(to_float(dy[8 * row + c]));
    }
    const double gamma = inputs.gamma[c], beta = inputs.beta[c];
    for (std::size_t row = 0; row < 11; ++row) {
      const double expected = slope_of([&](double step) {
        auto moved = x;
        moved[row] += step;
        return channel_loss(moved, r, up, gamma, beta);
      });
      EXPECT_NEAR(to_float(dx[8 * row + c]), expected, 1e-4 + 0x1p-8 * std::abs(expected));
    }
    EXPECT_NEAR(d_gamma[c] - 1.0,
                slope_of([&](double step) { return channel_loss(x, r, up, gamma + step, beta); }),
                1e-4);
    EXPECT_NEAR(d_beta[c] - 2.0,
                slope_of([&](double step) { return channel_loss(x, r, up, gamma, beta + step); }),
                1e-4);
  }
}

TEST(BatchNorm, RefusesShapesThatItCannotDo) {
#if ABLATE_HAS_CUDA
  EXPECT_THROW(batch_norm_apply({.shape = {1, 4, 12}}, nullptr), Error);
  EXPECT_THROW(batch_norm_statistics({.shape = {1, 1, 8}}, nullptr, nullptr), Error);
#endif
}

#if ABLATE_HAS_CUDA

using test::DeviceBuffer;
using test::same_bits;
using BatchNormGpu = test::GpuTest;

const std::vector<BatchNormShape>& norm_shapes() {
  static const std::vector<BatchNormShape> all{
      {1, 2, 8},      {1, 49, 2048},  {4, 49, 8},     {3, 7 * 49, 72}, {1, 1, 64},   {2, 1000, 24},
      {1, 12544, 64}, {8, 196, 1000}, {1, 6272, 256}, {1, 100003, 16}, {5, 3, 2056}, {2, 3136, 40},
  };
  return all;
}

std::string name_of(const BatchNormShape& shape) {
  std::ostringstream text;
  test::print_shape(text, shape);
  return text.str();
}

/// Of tables by the kernel from tables by the reference: sums of so many rows in float.
double table_error(const BatchNormShape& shape) {
  return 1e-6 * std::sqrt(static_cast<double>(shape.rows)) + 2e-6;
}

TEST_F(BatchNormGpu, StatisticsEqualTheReference) {
  for (const BatchNormShape& shape : norm_shapes()) {
    if (test::too_large_here(static_cast<std::int64_t>(elements(shape)))) continue;
    if (shape.rows == 1) continue;
    SCOPED_TRACE(name_of(shape));
    NormInputs inputs(shape);
    const auto channels = static_cast<std::size_t>(shape.channels);
    std::vector<double> expected_share(2 * channels, 0.0);
    auto expected = inputs.statistics(inputs.known.tables());
    expected.running = {.share = expected_share.data(), .after = 0.9};
    reference::batch_norm_statistics(expected);
    const DeviceBuffer<bfloat16> x(inputs.x, 8);
    const DeviceBuffer<float> gamma(inputs.gamma), beta(inputs.beta);
    DeviceBuffer<std::byte> workspace(batch_norm_workspace_bytes(shape));
    std::vector<float> first;
    for (int launch = 0; launch < 2; ++launch) {
      DeviceBuffer<float> tables(inputs.known.memory.size());
      DeviceBuffer<double> share(std::vector<double>(2 * channels, 0.0));
      batch_norm_statistics({.shape = shape,
                             .x = x.data(),
                             .gamma = gamma.data(),
                             .beta = beta.data(),
                             .tables = BatchNormTables::in(tables.data(), shape),
                             .running = {.share = share.data(), .after = 0.9}},
                            workspace.data(), nullptr);
      const auto found = tables.download();
      // A constant channel has 1/sqrt(eps) = 316 times what rounding leaves of its mean.
      EXPECT_TRUE(all_close(found, inputs.known.memory, 1e-4, table_error(shape)));
      const auto shares = share.download();
      for (std::size_t i = 0; i < shares.size(); ++i) {
        EXPECT_NEAR(shares[i], expected_share[i],
                    1e-5 + table_error(shape) * std::abs(expected_share[i]));
      }
      EXPECT_TRUE(tables.guards_intact() && share.guards_intact() && workspace.guards_intact());
      if (launch == 0) first = found;
      EXPECT_TRUE(same_bits(found, first));
    }
  }
}

TEST_F(BatchNormGpu, ApplyEqualsTheReferenceBitForBit) {
  for (const BatchNormShape& shape : norm_shapes()) {
    if (test::too_large_here(static_cast<std::int64_t>(elements(shape)))) continue;
    SCOPED_TRACE(name_of(shape));
    NormInputs inputs(shape), other(shape, 5);
    const DeviceBuffer<bfloat16> x(inputs.x, 8), residual(other.x, 8);
    DeviceBuffer<float> tables(inputs.known.memory), other_tables(other.known.memory);
    for (int kind = 0; kind < 3; ++kind) {  // no residual, plain, normalised
      std::vector<bfloat16> expected(elements(shape));
      std::vector<std::uint8_t> expected_mask(elements(shape) / 8);
      BatchNormApply arguments{.shape = shape,
                               .x = inputs.x.data(),
                               .tables = inputs.known.tables(),
                               .y = expected.data(),
                               .mask = expected_mask.data()};
      if (kind > 0) arguments.residual = other.x.data();
      if (kind == 2) arguments.residual_tables = other.known.tables();
      reference::batch_norm_apply(arguments);
      DeviceBuffer<bfloat16> y(elements(shape), 8);
      DeviceBuffer<std::uint8_t> mask(elements(shape) / 8);
      arguments.x = x.data();
      arguments.tables = BatchNormTables::in(tables.data(), shape);
      arguments.y = y.data();
      arguments.mask = mask.data();
      if (kind > 0) arguments.residual = residual.data();
      if (kind == 2) {
        arguments.residual_tables = BatchNormTables::in(other_tables.data(), shape);
      }
      batch_norm_apply(arguments, nullptr);
      EXPECT_TRUE(same_bits(y.download(), expected));
      EXPECT_EQ(mask.download(), expected_mask);
      EXPECT_TRUE(y.guards_intact() && mask.guards_intact());
    }
  }
}

TEST_F(BatchNormGpu, EvaluationTablesEqualTheReference) {
  const std::int64_t channels = 200;
  const BatchNormShape shape{1, 1, channels};
  const auto mean = test::normal_values<float>(200, 1), gamma = test::normal_values<float>(200, 2),
             beta = test::normal_values<float>(200, 3);
  auto var = test::normal_values<float>(200, 4);
  for (float& value : var) value = std::abs(value);
  HostTables expected(shape);
  reference::batch_norm_evaluation(
      {channels, mean.data(), var.data(), gamma.data(), beta.data(), 1e-5F, expected.tables()});
  const DeviceBuffer<float> d_mean(mean), d_var(var), d_gamma(gamma), d_beta(beta);
  DeviceBuffer<float> tables(400);
  batch_norm_evaluation(
      {channels,
       d_mean.data(),
       d_var.data(),
       d_gamma.data(),
       d_beta.data(),
       1e-5F,
       {.scale = tables.data(), .shift = tables.data() + 200, .mean = nullptr, .rstd = nullptr}},
      nullptr);
  expected.memory.resize(400);
  EXPECT_TRUE(all_close(tables.download(), expected.memory, 1e-6, 1e-6));
  EXPECT_TRUE(tables.guards_intact());
}

TEST_F(BatchNormGpu, RunningStatisticsHaveTheBitsOfTheReference) {
  const auto values = test::normal_values<float>(300, 1);
  std::vector<double> share(600);
  for (std::size_t i = 0; i < share.size(); ++i) share[i] = 0.1 * std::sin(static_cast<double>(i));
  auto mean = values, var = values;
  std::int64_t batches = 3;
  RunningStatistics entry{mean.data(), var.data(), &batches, share.data(), 300, 4, 0.6561};
  DeviceBuffer<float> d_mean(values), d_var(values);
  const DeviceBuffer<double> d_share(share);
  DeviceBuffer<std::int64_t> d_batches(std::vector<std::int64_t>{3});
  const DeviceBuffer<RunningStatistics> table(std::vector<RunningStatistics>{
      {d_mean.data(), d_var.data(), d_batches.data(), d_share.data(), 300, 4, 0.6561}});
  for (const std::int32_t finite : {0, 1, 1}) {
    reference::update_running_statistics({&entry, 1, &finite});
    const DeviceBuffer<std::int32_t> flag(std::vector<std::int32_t>{finite});
    update_running_statistics({table.data(), 1, flag.data()}, nullptr);
    EXPECT_TRUE(same_bits(d_mean.download(), mean));
    EXPECT_TRUE(same_bits(d_var.download(), var));
    EXPECT_EQ(d_batches.download()[0], batches);
  }
  EXPECT_EQ(batches, 11);
}

#endif

}  // namespace
}  // namespace ablate::kernels
