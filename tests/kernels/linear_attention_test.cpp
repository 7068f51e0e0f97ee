#include "methods/kernels/linear_attention.h"

#include <cmath>
#include <functional>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

using test::all_close;

std::vector<bfloat16> rounded_values(const std::vector<float>& values) {
  std::vector<bfloat16> result;
  for (const float value : values) result.push_back(from_float<bfloat16>(value));
  return result;
}

/// Values that attention takes: not negative, some of them zero.
std::vector<bfloat16> focused_values(std::size_t count, std::uint64_t key) {
  auto values = test::normal_values<bfloat16>(count, key);
  for (bfloat16& value : values) value = from_float<bfloat16>(std::max(0.0F, to_float(value)));
  return values;
}

double numeric_slope(const std::function<double(double)>& f) {
  constexpr double kStep = 1e-5;
  return (f(kStep) - f(-kStep)) / (2 * kStep);
}

TEST(Focus, KeepsTheNormAndKnowsAValue) {
  // f_3(1, 2, 2) = (0.264135, 2.113082, 2.113082).
  const auto x = rounded_values({1, 2, 2, 9});
  const std::vector<float> scale{1, 1, 1};
  std::vector<bfloat16> y(3);
  reference::focus({.rows = 1,
                    .width = 3,
                    .x = x.data(),
                    .x_stride = 4,
                    .scale = scale.data(),
                    .y = y.data(),
                    .y_stride = 3});
  EXPECT_NEAR(to_float(y[0]), 0.264135, 0.264135 * 0x1p-8);
  EXPECT_NEAR(to_float(y[1]), 2.113082, 2.113082 * 0x1p-8);
  EXPECT_EQ(y[1].bits, y[2].bits);
}

/// sum of dy f_3((relu(x) + eps) / scale) of one row, in double.
double focus_loss(const std::vector<double>& x, const std::vector<double>& dy,
                  const std::vector<double>& scale) {
  double norm = 0.0, cube_norm = 0.0, along = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double u = (std::max(x[i], 0.0) + 1e-6F) / scale[i];
    norm += u * u;
    cube_norm += std::pow(u, 6);
    along += dy[i] * u * u * u;
  }
  return std::sqrt(norm / cube_norm) * along;
}

TEST(Focus, ReferenceGradientIsTheDerivative) {
  const std::vector<double> x{1.5, -0.5, 0.25, 2, 0.75}, dy{1, 2, -1, 0.5, 3},
      scale{0.5, 1, 2, 1.5, 0.75};
  const auto x_half = rounded_values({1.5F, -0.5F, 0.25F, 2, 0.75F}),
             dy_half = rounded_values({1, 2, -1, 0.5F, 3});
  const std::vector<float> scale_float(scale.begin(), scale.end());
  std::vector<bfloat16> dx(5);
  std::vector<float> d_scale(5, 1.0F);
  reference::focus_backward(
      {.forward =
           {.rows = 1, .width = 5, .x = x_half.data(), .x_stride = 5, .scale = scale_float.data()},
       .dy = dy_half.data(),
       .dy_stride = 5,
       .dx = dx.data(),
       .dx_stride = 5,
       .d_scale = d_scale.data()});
  for (std::size_t i = 0; i < 5; ++i) {
    const double slope = numeric_slope([&](double step) {
      auto moved = x;
      moved[i] += step;
      return focus_loss(moved, dy, scale);
    });
    EXPECT_NEAR(to_float(dx[i]), slope, 1e-6 + 0x1p-8 * std::abs(slope));
    const double scale_slope = numeric_slope([&](double step) {
      auto moved = scale;
      moved[i] += step;
      return focus_loss(x, dy, moved);
    });
    EXPECT_NEAR(d_scale[i] - 1.0, scale_slope, 1e-5);
  }
}

/// Packed (B, N, 3, H, d) and what goes with it.
struct LinearCase {
  AttentionShape shape;

  std::size_t dense() const {
    return static_cast<std::size_t>(shape.batch * shape.tokens * shape.heads * shape.head_dim);
  }
  std::int64_t width() const { return shape.heads * shape.head_dim; }
  std::vector<bfloat16> packed() const {
    auto values = test::normal_values<bfloat16>(3 * dense(), 1);
    const auto positive = focused_values(3 * dense(), 1);
    const auto row = static_cast<std::size_t>(3 * width());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i % row < 2 * row / 3) values[i] = positive[i];
    }
    return values;
  }
  LinearAttention forward(const bfloat16* packed, bfloat16* out) const {
    const std::int64_t w = width();
    return {.shape = shape,
            .q = {packed, 3 * w},
            .k = {packed + w, 3 * w},
            .v = {packed + 2 * w, 3 * w},
            .out = out};
  }
  LinearAttentionBackward backward(const bfloat16* packed, bfloat16* out, const bfloat16* grad_out,
                                   bfloat16* grad) const {
    const std::int64_t w = width();
    return {.forward = forward(packed, out),
            .grad_out = grad_out,
            .grad_q = {grad, 3 * w},
            .grad_k = {grad + w, 3 * w},
            .grad_v = {grad + 2 * w, 3 * w}};
  }
};

TEST(LinearAttention, EqualKeysGiveTheMeanOfTheValues) {
  const LinearCase subject{{.batch = 1, .tokens = 4, .heads = 2, .head_dim = 2}};
  auto packed = subject.packed();
  for (std::size_t i = 0; i < packed.size(); ++i) {
    if (i % 12 < 8)
      packed[i] = from_float<bfloat16>(i % 12 < 4 ? (i % 2 == 0 ? 0.5F : 0.75F) : 2.0F);
  }
  std::vector<bfloat16> out(16);
  reference::linear_attention(subject.forward(packed.data(), out.data()));
  for (std::size_t c = 0; c < 4; ++c) {
    double mean = 0.0;
    for (std::size_t j = 0; j < 4; ++j) mean += to_float(packed[12 * j + 8 + c]) / 4;
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(to_float(out[4 * i + c]), mean, 1e-5 + 0x1p-8 * std::abs(mean));
    }
  }
}

/// sum of dy out for one head of one image, in double.
double linear_loss(const std::vector<double>& packed, const std::vector<double>& dy,
                   std::size_t tokens, std::size_t d) {
  double loss = 0.0;
  for (std::size_t i = 0; i < tokens; ++i) {
    double normaliser = static_cast<double>(tokens) * 1e-6F, along = 0.0;
    for (std::size_t j = 0; j < tokens; ++j) {
      double product = 0.0, value = 0.0;
      for (std::size_t c = 0; c < d; ++c) {
        product += packed[3 * d * i + c] * packed[3 * d * j + d + c];
        value += dy[d * i + c] * packed[3 * d * j + 2 * d + c];
      }
      normaliser += product;
      along += product * value;
    }
    loss += along / normaliser;
  }
  return loss;
}

TEST(LinearAttention, ReferenceGradientIsTheDerivative) {
  const LinearCase subject{{.batch = 1, .tokens = 5, .heads = 1, .head_dim = 3}};
  auto packed = subject.packed();
  for (bfloat16& value : packed) value = from_float<bfloat16>(to_float(value) + 0.25F);
  const auto grad_out = test::normal_values<bfloat16>(15, 2);
  std::vector<bfloat16> out(15), grad(45);
  reference::linear_attention_backward(
      subject.backward(packed.data(), out.data(), grad_out.data(), grad.data()));
  std::vector<double> values, dy;
  for (const bfloat16 value : packed) values.push_back(to_float(value));
  for (const bfloat16 value : grad_out) dy.push_back(to_float(value));
  for (std::size_t i = 0; i < 45; ++i) {
    const double slope = numeric_slope([&](double step) {
      auto moved = values;
      moved[i] += step;
      return linear_loss(moved, dy, 5, 3);
    });
    EXPECT_NEAR(to_float(grad[i]), slope, 1e-6 + 0x1p-8 * std::abs(slope)) << i;
  }
}

#if ABLATE_HAS_CUDA

using test::DeviceBuffer;
using test::same_bits;
using FocusGpu = test::GpuTest;
using LinearAttentionGpu = test::GpuTest;

TEST_F(FocusGpu, EqualsTheReference) {
  struct Size {
    std::int64_t rows, width;
  };
  for (const Size& size : std::vector<Size>{
           {1, 8}, {7, 192}, {197, 384}, {1000, 768}, {33, 97}, {65, 1024}, {3, 4096}, {500, 40}}) {
    SCOPED_TRACE(::testing::Message() << size.rows << " x " << size.width);
    const std::int64_t stride = size.width % 8 == 0 ? size.width + 16 : size.width + 3;
    const auto count = static_cast<std::size_t>(size.rows * stride);
    const auto width = static_cast<std::size_t>(size.width);
    const auto x = test::normal_values<bfloat16>(count, 1),
               dy = test::normal_values<bfloat16>(count, 2);
    auto scale = test::normal_values<float>(width, 3, 0.1, 0.7);
    for (float& value : scale) value = std::max(value, 0.3F);
    auto y = test::poison<bfloat16>(count), dx = y;
    std::vector<float> d_scale(width, 0.5F);
    Focus forward{.rows = size.rows,
                  .width = size.width,
                  .x = x.data(),
                  .x_stride = stride,
                  .scale = scale.data(),
                  .y = y.data(),
                  .y_stride = stride};
    FocusBackward backward{.forward = forward,
                           .dy = dy.data(),
                           .dy_stride = stride,
                           .dx = dx.data(),
                           .dx_stride = stride,
                           .d_scale = d_scale.data()};
    reference::focus(forward);
    reference::focus_backward(backward);
    const DeviceBuffer<bfloat16> d_x(x, 8), d_dy(dy, 8);
    const DeviceBuffer<float> d_scales(scale);
    DeviceBuffer<bfloat16> d_y(count, 8), d_dx(count, 8);
    DeviceBuffer<float> sums(std::vector<float>(width, 0.5F));
    DeviceBuffer<std::byte> workspace(focus_backward_workspace_bytes(size.width));
    forward.x = d_x.data();
    forward.scale = d_scales.data();
    forward.y = d_y.data();
    focus(forward, nullptr);
    backward.forward = forward;
    backward.dy = d_dy.data();
    backward.dx = d_dx.data();
    backward.d_scale = sums.data();
    focus_backward(backward, workspace.data(), nullptr);
    EXPECT_TRUE(all_close(d_y.download(), y, 1e-6, 2 * test::rounding_of<bfloat16>()));
    EXPECT_TRUE(all_close(d_dx.download(), dx, 1e-5, 2 * test::rounding_of<bfloat16>()));
    const auto first = sums.download();
    EXPECT_TRUE(
        all_close(first, d_scale, 1e-5 * std::sqrt(static_cast<double>(size.rows)) + 1e-5, 1e-5));
    EXPECT_TRUE(d_y.guards_intact() && d_dx.guards_intact() && sums.guards_intact() &&
                workspace.guards_intact());
    sums.upload(std::vector<float>(width, 0.5F));
    focus_backward(backward, workspace.data(), nullptr);
    EXPECT_TRUE(same_bits(sums.download(), first));
  }
}

const std::vector<LinearCase>& linear_cases() {
  static const std::vector<LinearCase> all{{{1, 1, 1, 32}},   {{2, 49, 3, 32}}, {{1, 197, 6, 64}},
                                           {{3, 65, 2, 64}},  {{2, 16, 1, 64}}, {{1, 784, 2, 32}},
                                           {{1, 100, 5, 64}}, {{2, 33, 4, 32}}};
  return all;
}

/// Where the summands of a result are about `size`, k^T v and its gradient cost one rounding each.
double product_error(const std::vector<bfloat16>& values) {
  double squares = 0.0;
  for (const bfloat16 value : values) squares += std::pow(to_float(value), 2);
  return 0x1p-6 * std::sqrt(squares / static_cast<double>(values.size()));
}

TEST_F(LinearAttentionGpu, EqualsTheReference) {
  for (const LinearCase& subject : linear_cases()) {
    const AttentionShape& shape = subject.shape;
    SCOPED_TRACE(::testing::Message() << shape.batch << " images, " << shape.tokens << " tokens, "
                                      << shape.heads << " heads of " << shape.head_dim);
    const auto packed = subject.packed();
    const auto grad_out = test::normal_values<bfloat16>(subject.dense(), 2);
    std::vector<bfloat16> out(subject.dense()), grad(packed.size());
    reference::linear_attention(subject.forward(packed.data(), out.data()));
    reference::linear_attention_backward(
        subject.backward(packed.data(), out.data(), grad_out.data(), grad.data()));
    const DeviceBuffer<bfloat16> d_packed(packed, 8), d_grad_out(grad_out, 8);
    std::vector<bfloat16> first;
    for (int launch = 0; launch < 2; ++launch) {
      DeviceBuffer<bfloat16> d_out(out.size(), 8), d_grad(grad.size(), 8);
      linear_attention(subject.forward(d_packed.data(), d_out.data()), nullptr);
      linear_attention_backward(
          subject.backward(d_packed.data(), d_out.data(), d_grad_out.data(), d_grad.data()),
          nullptr);
      EXPECT_TRUE(all_close(d_out.download(), out, product_error(out), 0x1p-6));
      const auto found = d_grad.download();
      // q, k and v have gradients of different sizes.
      const auto width = static_cast<std::size_t>(subject.width());
      for (std::size_t part = 0; part < 3; ++part) {
        std::vector<bfloat16> mine, expected;
        for (std::size_t i = 0; i < grad.size(); ++i) {
          if (i / width % 3 != part) continue;
          mine.push_back(found[i]);
          expected.push_back(grad[i]);
        }
        // Gradients of q and k are differences of terms as large as the output.
        EXPECT_TRUE(all_close(mine, expected, product_error(expected) + product_error(out), 0x1p-6))
            << "part " << part;
      }
      EXPECT_TRUE(d_out.guards_intact() && d_grad.guards_intact());
      if (launch == 0) first = found;
      EXPECT_TRUE(same_bits(found, first));
    }
  }
}

TEST(LinearAttention, RefusesHeadsThatItCannotDo) {
  EXPECT_THROW(linear_attention({.shape = {1, 4, 1, 48}}, nullptr), Error);
}

#endif

}  // namespace
}  // namespace ablate::kernels
