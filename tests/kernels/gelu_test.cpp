#include "methods/kernels/gelu.h"

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include <gtest/gtest.h>

#include "methods/kernels/gelu_math.h"
#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

/// What gelu_math.h promises for the probability, on host and device.
constexpr double kTailError = 2e-7;

double exact_gelu(double x) { return x * 0.5 * std::erfc(-x / std::numbers::sqrt2); }

double exact_gelu_slope(double x) {
  const double density = std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi);
  return 0.5 * std::erfc(-x / std::numbers::sqrt2) + x * density;
}

/// From -16 to 16 in steps of about 1/4096, few of them round numbers.
std::vector<float> gelu_arguments() {
  std::vector<float> arguments;
  for (int i = -65536; i <= 65536; ++i) arguments.push_back(static_cast<float>(i) * 0x1.001p-12F);
  return arguments;
}

/// Largest |f(x) - exact(x)| / bound(x) over gelu_arguments(), where f is given by its values.
template <typename Exact, typename Bound>
double worst_of(const std::vector<float>& values, const Exact& exact, const Bound& bound) {
  const auto arguments = gelu_arguments();
  double worst = 0.0;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const double share = std::abs(values[i] - exact(arguments[i])) / bound(arguments[i]);
    if (!(share <= worst)) worst = share;  // NaN too
  }
  return worst;
}

template <typename Function>
std::vector<float> values_of(const Function& function) {
  std::vector<float> values;
  for (const float x : gelu_arguments()) values.push_back(function(x));
  return values;
}

/// |x| times the tail's error, and one rounding of the result in float.
double gelu_value_bound(double x) {
  return kTailError * std::abs(x) + 0x1p-24 * std::abs(exact_gelu(x)) + 1e-30;
}
/// The tail's error, and that of x phi(x) < 0.25 with an exponential good to 2^-20 there.
double gelu_slope_bound(double) { return kTailError + 0x1p-22; }

TEST(Gelu, ApproximationKeepsItsBounds) {
  const auto tail = [](double x) { return 0.5 * std::erfc(std::abs(x) / std::numbers::sqrt2); };
  const auto constant = [](double) { return kTailError; };
  EXPECT_LT(worst_of(values_of([](float x) { return normal_tail(x).probability; }), tail, constant),
            1.0);
  EXPECT_LT(worst_of(values_of(gelu_value), exact_gelu, gelu_value_bound), 1.0);
  EXPECT_LT(worst_of(values_of(gelu_slope), exact_gelu_slope, gelu_slope_bound), 1.0);
}

TEST(Gelu, ApproximationAtTheEdges) {
  EXPECT_EQ(gelu_value(0.0F), 0.0F);
  EXPECT_EQ(gelu_value(1e30F), 1e30F);
  EXPECT_EQ(gelu_value(-1e30F), 0.0F);
  EXPECT_EQ(gelu_slope(1e30F), 1.0F);
  EXPECT_EQ(gelu_slope(-1e30F), 0.0F);
  EXPECT_TRUE(std::isnan(gelu_value(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(gelu_slope(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Gelu, ReferenceKnowsPublishedValues) {
  // torch.nn.functional.gelu of -1, 0, 1, 2.
  const std::vector<float> x{-1.0F, 0.0F, 1.0F, 2.0F};
  std::vector<float> y(4);
  reference::gelu_forward(x.data(), y.data(), 4);
  EXPECT_NEAR(y[0], -0.158655254, 1e-8);
  EXPECT_EQ(y[1], 0.0F);
  EXPECT_NEAR(y[2], 0.841344746, 1e-7);
  EXPECT_NEAR(y[3], 1.954499736, 2e-7);
}

TEST(Gelu, ReferenceBackwardIsTheDerivative) {
  const std::vector<float> x{-2.5F, -0.3F, 0.7F, 1.9F, 0.0F, -1.0F};
  const std::vector<float> dy{1.0F, -2.0F, 0.5F, 3.0F, 1.0F, 1.0F};
  std::vector<float> dx(6), bias{10.0F, 20.0F};
  reference::gelu_backward<float>({.x = x.data(),
                                   .dy = dy.data(),
                                   .dx = dx.data(),
                                   .rows = 3,
                                   .width = 2,
                                   .bias_gradient = bias.data()});
  for (std::size_t i = 0; i < x.size(); ++i) {
    constexpr double kStep = 1e-5;
    const double slope = (exact_gelu(x[i] + kStep) - exact_gelu(x[i] - kStep)) / (2 * kStep);
    EXPECT_NEAR(dx[i], dy[i] * slope, 1e-6);
  }
  EXPECT_NEAR(bias[0], 10.0F + dx[0] + dx[2] + dx[4], 1e-5);
  EXPECT_NEAR(bias[1], 20.0F + dx[1] + dx[3] + dx[5], 1e-5);
}

#if ABLATE_HAS_CUDA

using test::all_close;
using test::DeviceBuffer;
using GeluGpu = test::GpuTest;

TEST_F(GeluGpu, ForwardKeepsTheBoundInSinglePrecision) {
  const auto x = gelu_arguments();
  const DeviceBuffer<float> input(x);
  DeviceBuffer<float> output(x.size());
  gelu_forward(input.data(), output.data(), static_cast<std::int64_t>(x.size()), nullptr);
  const auto y = output.download();
  EXPECT_LT(worst_of(y, exact_gelu, gelu_value_bound), 1.0);
  EXPECT_TRUE(output.guards_intact());
}

TEST_F(GeluGpu, BackwardKeepsTheBoundInSinglePrecision) {
  const auto x = gelu_arguments();
  const DeviceBuffer<float> input(x);
  const DeviceBuffer<float> ones(std::vector<float>(x.size(), 1.0F));
  DeviceBuffer<float> output(x.size());
  gelu_backward<float>({.x = input.data(),
                        .dy = ones.data(),
                        .dx = output.data(),
                        .rows = static_cast<std::int64_t>(x.size()),
                        .width = 1},
                       nullptr, nullptr);
  const auto dx = output.download();
  EXPECT_LT(worst_of(dx, exact_gelu_slope, gelu_slope_bound), 1.0);
  EXPECT_TRUE(output.guards_intact());
}

TEST_F(GeluGpu, ForwardOfAnyCount) {
  for (const std::size_t count : {1, 7, 8, 9, 255, 4095, 4096, 4097, 100003}) {
    SCOPED_TRACE(count);
    const auto x = test::normal_values<bfloat16>(count, count, 2.0);
    std::vector<bfloat16> expected(count);
    reference::gelu_forward(x.data(), expected.data(), static_cast<std::int64_t>(count));
    const DeviceBuffer<bfloat16> input(x, 8);
    DeviceBuffer<bfloat16> output(count, 8);
    gelu_forward(input.data(), output.data(), static_cast<std::int64_t>(count), nullptr);
    EXPECT_TRUE(all_close(output.download(), expected, 1e-6, 0x1p-7));
    EXPECT_TRUE(output.guards_intact());
    DeviceBuffer<bfloat16> in_place(x, 8);
    gelu_forward(in_place.data(), in_place.data(), static_cast<std::int64_t>(count), nullptr);
    EXPECT_TRUE(test::same_bits(in_place.download(), output.download()));
  }
}

struct GeluSize {
  std::int64_t rows, width;
  bool bias;
};

template <typename T>
void expect_gelu_backward_equals_reference(const GeluSize& size) {
  const auto count = static_cast<std::size_t>(size.rows * size.width);
  const auto width = static_cast<std::size_t>(size.width);
  const auto x = test::normal_values<T>(count, 1, 1.5);
  const auto dy = test::normal_values<T>(count, 2);
  const auto before = test::normal_values<float>(width, 3);
  std::vector<T> expected(count);
  auto expected_bias = before;
  reference::gelu_backward<T>({.x = x.data(),
                               .dy = dy.data(),
                               .dx = expected.data(),
                               .rows = size.rows,
                               .width = size.width,
                               .bias_gradient = size.bias ? expected_bias.data() : nullptr});
  const std::size_t shift = size.width % 8 == 0 ? 8 : 1;
  const DeviceBuffer<T> inputs(x, shift);
  DeviceBuffer<std::byte> workspace(gelu_backward_workspace_bytes(size.rows, size.width));
  std::vector<T> first;
  std::vector<float> first_bias;
  for (int launch = 0; launch < 3; ++launch) {
    DeviceBuffer<T> gradients(dy, shift);
    DeviceBuffer<T> separate(count, shift);
    DeviceBuffer<T>& output = launch == 2 ? gradients : separate;  // the last one in place
    DeviceBuffer<float> bias(before, 1);
    gelu_backward<T>({.x = inputs.data(),
                      .dy = gradients.data(),
                      .dx = output.data(),
                      .rows = size.rows,
                      .width = size.width,
                      .bias_gradient = size.bias ? bias.data() : nullptr},
                     workspace.data(), nullptr);
    const auto dx = output.download();
    const auto sums = bias.download();
    const double sum_error = 2e-6 * std::sqrt(static_cast<double>(size.rows));
    EXPECT_TRUE(all_close(dx, expected, 2e-6, 2 * test::rounding_of<T>()));
    EXPECT_TRUE(all_close(sums, expected_bias, sum_error, 1e-6));
    EXPECT_TRUE(output.guards_intact() && bias.guards_intact() && workspace.guards_intact());
    if (launch == 0) first = dx;
    if (launch == 0) first_bias = sums;
    EXPECT_TRUE(test::same_bits(dx, first));
    EXPECT_TRUE(test::same_bits(sums, first_bias));
  }
}

TEST_F(GeluGpu, BackwardEqualsTheReference) {
  for (const GeluSize& size : std::vector<GeluSize>{{1, 1, true},
                                                    {1, 8, true},
                                                    {5, 24, false},
                                                    {77, 100, true},
                                                    {333, 264, true},
                                                    {1025, 768, true},
                                                    {1025, 768, false},
                                                    {64, 3072, true},
                                                    {3, 4104, true},
                                                    {130, 523, true}}) {
    if (test::too_large_here(size.rows * size.width)) continue;
    SCOPED_TRACE(::testing::Message() << size.rows << " x " << size.width << " bias " << size.bias);
    expect_gelu_backward_equals_reference<float>(size);
    expect_gelu_backward_equals_reference<bfloat16>(size);
  }
}

#endif

}  // namespace
}  // namespace ablate::kernels
