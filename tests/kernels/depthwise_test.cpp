#include "methods/kernels/depthwise.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

/// A map of values among others: the values of packed rows, behind a token that is none of it.
struct DepthwiseCase {
  explicit DepthwiseCase(const DepthwiseShape& s) : shape(s) {
    const auto tokens = static_cast<std::size_t>(s.batch * (s.height * s.width + 1)),
               channels = static_cast<std::size_t>(s.channels),
               kernels = static_cast<std::size_t>(s.kernels);
    packed = test::normal_values<bfloat16>(tokens * 3 * channels, 1);
    dense = test::normal_values<bfloat16>(tokens * channels, 2);
    kernel = test::normal_values<float>(kernels * static_cast<std::size_t>(s.taps()), 3, 0.3);
    bias = test::normal_values<float>(kernels, 4);
  }

  template <typename T>
  TokenMap<T> values(T* of_packed) const {
    const std::int64_t row = 3 * shape.channels;
    return {of_packed + row + 2 * shape.channels, row, (shape.height * shape.width + 1) * row};
  }
  template <typename T>
  TokenMap<T> rows(T* of_dense) const {
    return {of_dense + shape.channels, shape.channels,
            (shape.height * shape.width + 1) * shape.channels};
  }

  DepthwiseShape shape;
  std::vector<bfloat16> packed, dense;
  std::vector<float> kernel, bias;
};

TEST(Depthwise, AddsTheNeighboursUnderTheKernel) {
  // One channel counts: 1 x 3 places of values 1, 2, 4 and a kernel that tells its taps apart.
  const DepthwiseShape shape{
      .batch = 1, .height = 1, .width = 3, .channels = 8, .kernels = 8, .side = 3};
  std::vector<bfloat16> x(24), y(24);
  std::vector<float> kernel(72), bias(8);
  for (std::size_t i = 0; i < 3; ++i) x[8 * i] = from_float<bfloat16>(static_cast<float>(1 << i));
  kernel[3] = 3;
  kernel[4] = 5;
  kernel[5] = 7;
  bias[0] = 0.5;
  Depthwise arguments{.shape = shape,
                      .x = {x.data(), 8, 24},
                      .kernel = kernel.data(),
                      .bias = bias.data(),
                      .base = {},
                      .y = {y.data(), 8, 24}};
  const auto results = [&] {
    reference::depthwise(arguments);
    return std::vector{to_float(y[0]), to_float(y[8]), to_float(y[16])};
  };
  EXPECT_EQ(results(), (std::vector{5 + 14 + 0.5F, 3 + 10 + 28 + 0.5F, 6 + 20 + 0.5F}));
  arguments.flipped = true;
  arguments.bias = nullptr;
  EXPECT_EQ(results(), (std::vector{5 + 6.0F, 7 + 10 + 12.0F, 14 + 20.0F}));
  arguments.base = {x.data(), 8, 24};
  EXPECT_EQ(results(), (std::vector{1 + 5 + 6.0F, 2 + 7 + 10 + 12.0F, 4 + 14 + 20.0F}));
}

// y is linear in x and in the kernel: <dy, y> is <dx, x>, and <d_kernel, kernel> + <d_bias, bias>.
TEST(Depthwise, ItsGradientsAreTheAdjoints) {
  DepthwiseCase c({.batch = 2, .height = 4, .width = 5, .channels = 16, .kernels = 8, .side = 5});
  std::vector<bfloat16> y(c.dense.size()), dx(c.dense.size());
  std::vector<float> d_kernel(c.kernel.size()), d_bias(c.bias.size());
  reference::depthwise({.shape = c.shape,
                        .x = c.values<const bfloat16>(c.packed.data()),
                        .kernel = c.kernel.data(),
                        .bias = c.bias.data(),
                        .base = {},
                        .y = c.rows(y.data())});
  reference::depthwise({.shape = c.shape,
                        .x = c.rows<const bfloat16>(c.dense.data()),
                        .kernel = c.kernel.data(),
                        .flipped = true,
                        .base = {},
                        .y = c.rows(dx.data())});
  reference::depthwise_kernel_gradient({.shape = c.shape,
                                        .x = c.values<const bfloat16>(c.packed.data()),
                                        .dy = c.rows<const bfloat16>(c.dense.data()),
                                        .d_kernel = d_kernel.data(),
                                        .d_bias = d_bias.data()});
  double output = 0, by_kernel = 0, by_bias = 0, by_input = 0;
  const auto x = c.values<const bfloat16>(c.packed.data()),
             dy = c.rows<const bfloat16>(c.dense.data()), out = c.rows<const bfloat16>(y.data()),
             back = c.rows<const bfloat16>(dx.data());
  const auto at = [](const TokenMap<const bfloat16>& map, std::int64_t b, std::int64_t p,
                     std::int64_t channel) {
    return static_cast<double>(to_float(map.data[b * map.image + p * map.stride + channel]));
  };
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t p = 0; p < 20; ++p) {
      for (std::int64_t channel = 0; channel < 16; ++channel) {
        output += at(dy, b, p, channel) * at(out, b, p, channel);
        by_input += at(back, b, p, channel) * at(x, b, p, channel);
      }
    }
  }
  for (std::size_t i = 0; i < d_kernel.size(); ++i) by_kernel += d_kernel[i] * c.kernel[i];
  for (std::size_t i = 0; i < d_bias.size(); ++i) by_bias += d_bias[i] * c.bias[i];
  const double scale = std::abs(by_kernel) + std::abs(by_bias);
  EXPECT_NEAR(output, by_kernel + by_bias, 0.02 * scale);
  EXPECT_NEAR(by_input, by_kernel, 0.02 * scale);
  EXPECT_GT(std::abs(by_kernel), 1.0);
}

#if ABLATE_HAS_CUDA

using test::all_close;
using test::DeviceBuffer;
using DepthwiseGpu = test::GpuTest;

const std::vector<DepthwiseShape> kDepthwiseShapes{
    {.batch = 1, .height = 1, .width = 1, .channels = 8, .kernels = 8, .side = 3},
    {.batch = 2, .height = 3, .width = 5, .channels = 24, .kernels = 8, .side = 5},
    {.batch = 3, .height = 7, .width = 7, .channels = 40, .kernels = 40, .side = 3},
    {.batch = 5, .height = 4, .width = 9, .channels = 96, .kernels = 32, .side = 5},
    {.batch = 4, .height = 14, .width = 14, .channels = 64, .kernels = 64, .side = 5},
    {.batch = 2, .height = 28, .width = 28, .channels = 192, .kernels = 32, .side = 5},
    {.batch = 300, .height = 2, .width = 2, .channels = 32, .kernels = 32, .side = 5},
};

TEST_F(DepthwiseGpu, EqualsTheReference) {
  for (const DepthwiseShape& shape : kDepthwiseShapes) {
    if (test::too_large_here(shape.batch * shape.height * shape.width * shape.channels)) continue;
    SCOPED_TRACE(::testing::Message() << shape.height << " x " << shape.width << " x "
                                      << shape.channels << ", side " << shape.side);
    for (const bool flipped : {false, true}) {
      const DepthwiseCase c(shape);
      const auto call = [&](auto* x, auto* kernel, auto* bias, bfloat16* y) {
        return Depthwise{.shape = shape,
                         .x = c.values<const bfloat16>(x),
                         .kernel = kernel,
                         .bias = flipped ? nullptr : bias,
                         .flipped = flipped,
                         .base = c.rows<const bfloat16>(y),
                         .y = c.rows(y)};
      };
      auto expected = c.dense;
      reference::depthwise(call(c.packed.data(), c.kernel.data(), c.bias.data(), expected.data()));
      const DeviceBuffer<bfloat16> x(c.packed);
      const DeviceBuffer<float> kernel(c.kernel), bias(c.bias);
      DeviceBuffer<bfloat16> y(c.dense);
      depthwise(call(x.data(), kernel.data(), bias.data(), y.data()), nullptr);
      EXPECT_TRUE(all_close(y.download(), expected, 1e-5, 0x1p-7));
      EXPECT_TRUE(y.guards_intact());
    }
  }
}

TEST_F(DepthwiseGpu, KernelGradientEqualsTheReferenceWithTheSameBits) {
  for (const DepthwiseShape& shape : kDepthwiseShapes) {
    if (test::too_large_here(shape.batch * shape.height * shape.width * shape.channels)) continue;
    SCOPED_TRACE(::testing::Message() << shape.height << " x " << shape.width << " x "
                                      << shape.channels << ", side " << shape.side);
    const DepthwiseCase c(shape);
    const auto call = [&](auto* x, auto* dy, float* d_kernel, float* d_bias) {
      return DepthwiseKernelGradient{.shape = shape,
                                     .x = c.values<const bfloat16>(x),
                                     .dy = c.rows<const bfloat16>(dy),
                                     .d_kernel = d_kernel,
                                     .d_bias = d_bias};
    };
    auto expected_kernel = c.kernel, expected_bias = c.bias;
    reference::depthwise_kernel_gradient(
        call(c.packed.data(), c.dense.data(), expected_kernel.data(), expected_bias.data()));
    const DeviceBuffer<bfloat16> x(c.packed), dy(c.dense);
    DeviceBuffer<std::byte> workspace(depthwise_kernel_gradient_workspace_bytes(shape));
    const auto places = static_cast<double>(shape.batch * shape.height * shape.width *
                                            shape.channels / shape.kernels);
    std::vector<float> first;
    for (int launch = 0; launch < 2; ++launch) {
      DeviceBuffer<float> d_kernel(c.kernel), d_bias(c.bias);
      depthwise_kernel_gradient(call(x.data(), dy.data(), d_kernel.data(), d_bias.data()),
                                workspace.data(), nullptr);
      const auto actual = d_kernel.download();
      EXPECT_TRUE(all_close(actual, expected_kernel, 1e-5 * std::sqrt(places), 1e-5));
      EXPECT_TRUE(all_close(d_bias.download(), expected_bias, 1e-5 * std::sqrt(places), 1e-5));
      EXPECT_TRUE(d_kernel.guards_intact());
      EXPECT_TRUE(d_bias.guards_intact());
      if (launch == 0) first = actual;
      EXPECT_TRUE(test::same_bits(actual, first));
    }
    EXPECT_TRUE(workspace.guards_intact());
  }
}

TEST_F(DepthwiseGpu, SaysWhatItSupports) {
  EXPECT_THROW(
      depthwise(
          {.shape = {.batch = 1, .height = 2, .width = 2, .channels = 8, .kernels = 8, .side = 7}},
          nullptr),
      Error);
  EXPECT_THROW(
      depthwise(
          {.shape =
               {.batch = 1, .height = 2, .width = 2, .channels = 24, .kernels = 16, .side = 5}},
          nullptr),
      Error);
}

#endif

}  // namespace
}  // namespace ablate::kernels
