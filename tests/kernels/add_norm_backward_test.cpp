#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "methods/kernels/add_norm.h"
#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

using test::all_close;
using test::normal_values;
using Doubles = std::vector<double>;

std::size_t row_elements(std::int64_t a, std::int64_t b = 1, std::int64_t c = 1) {
  return static_cast<std::size_t>(a * b * c);
}

/// A join with norm in double precision, whose outputs meet the loss sum(wy y) + sum(wx x).
struct PlainJoin {
  std::size_t batch = 2, tokens = 3, width = 5;
  double skip = 1.25, eps = 1e-3;
  Doubles base, branch, scale, gamma, beta, wy, wx;

  Doubles joined() const {
    Doubles x(base.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = skip * base[i] + scale[i / (tokens * width)] * branch[i];
    }
    return x;
  }
  double loss() const {
    const Doubles x = joined();
    double total = 0.0;
    for (std::size_t row = 0; row < batch * tokens; ++row) {
      double mean = 0.0, variance = 0.0;
      for (std::size_t c = 0; c < width; ++c) mean += x[row * width + c] / double(width);
      for (std::size_t c = 0; c < width; ++c) {
        variance += std::pow(x[row * width + c] - mean, 2) / double(width);
      }
      for (std::size_t c = 0; c < width; ++c) {
        const std::size_t i = row * width + c;
        const double y = (x[i] - mean) / std::sqrt(variance + eps) * gamma[c] + beta[c];
        total += wy[i] * y + wx[i] * x[i];
      }
    }
    return total;
  }
  /// Central differences of the loss.
  Doubles slope(Doubles PlainJoin::*member) {
    constexpr double kStep = 1e-5;
    Doubles result;
    for (double& value : this->*member) {
      const double kept = value;
      value = kept + kStep;
      const double above = loss();
      value = kept - kStep;
      result.push_back((above - loss()) / (2 * kStep));
      value = kept;
    }
    return result;
  }
};

Doubles doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

TEST(AddNorm, BackwardIsTheDerivative) {
  const auto base = normal_values<float>(30, 1), gamma = normal_values<float>(5, 2, 0.5, 1.0),
             dx = normal_values<float>(30, 4);
  const auto branch = normal_values<bfloat16>(30, 3), dy = normal_values<bfloat16>(30, 5);
  const std::vector<float> scale{1.25F, 0.0F};
  PlainJoin plain{.base = doubles(base),
                  .branch = doubles(test::as_floats(branch)),
                  .scale = doubles(scale),
                  .gamma = doubles(gamma),
                  .beta = Doubles(5, 0.5),
                  .wy = doubles(test::as_floats(dy)),
                  .wx = doubles(dx)};
  const std::vector<float> beta(5, 0.5F);
  std::vector<float> x(30), statistics(12), d_base(30), d_gamma(5, 1.0F), d_beta(5, 2.0F),
      d_bias(5, 3.0F);
  std::vector<bfloat16> y(30), d_branch(30);
  const AddNormShape shape = AddNormShape::dense(2, 3, 5);
  reference::add_norm_forward<float>({.shape = shape,
                                      .base = base.data(),
                                      .branch = branch.data(),
                                      .scale = scale.data(),
                                      .skip = {.value = 1.25F},
                                      .gamma = gamma.data(),
                                      .beta = beta.data(),
                                      .eps = 1e-3F,
                                      .x = x.data(),
                                      .y = y.data(),
                                      .statistics = statistics.data()});
  reference::add_norm_backward<float>({.shape = shape,
                                       .dy = dy.data(),
                                       .x = x.data(),
                                       .statistics = statistics.data(),
                                       .gamma = gamma.data(),
                                       .dx = dx.data(),
                                       .scale = scale.data(),
                                       .skip = {.value = 1.25F},
                                       .d_base = d_base.data(),
                                       .d_branch = d_branch.data(),
                                       .d_gamma = d_gamma.data(),
                                       .d_beta = d_beta.data(),
                                       .d_bias = d_bias.data()});
  const auto expect_near = [](const std::vector<float>& got, const Doubles& want, double offset,
                              double tolerance) {
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i], offset + want[i], tolerance * (1.0 + std::abs(want[i]))) << i;
    }
  };
  const Doubles branch_slope = plain.slope(&PlainJoin::branch);
  expect_near(d_base, plain.slope(&PlainJoin::base), 0.0, 1e-5);
  expect_near(test::as_floats(d_branch), branch_slope, 0.0, 0x1p-8);
  expect_near(d_gamma, plain.slope(&PlainJoin::gamma), 1.0, 1e-5);
  expect_near(d_beta, plain.slope(&PlainJoin::beta), 2.0, 1e-5);
  Doubles bias_slope(5);  // a bias is added to every row of the branch
  for (std::size_t i = 0; i < 30; ++i) bias_slope[i % 5] += branch_slope[i];
  expect_near(d_bias, bias_slope, 3.0, 1e-5);
}

#if ABLATE_HAS_CUDA

using test::DeviceBuffer;
using AddNormBackwardGpu = test::GpuTest;

struct NormBackwardCase {
  AddNormShape shape;
  bool branch = true, scale = true, incoming = true, sums = true, in_place = false;
  float skip = 1.0F;
  bool factor = false;
};

std::ostream& operator<<(std::ostream& out, const NormBackwardCase& c) {
  const AddNormShape& s = c.shape;
  return out << s.batch << " x " << s.base << " x " << s.width << ", normalised " << s.normalised
             << ", tokens of branch, x, dx: " << s.branch << " " << s.x << " " << s.dx
             << ", branch " << c.branch << ", scale " << c.scale << ", incoming " << c.incoming
             << ", sums " << c.sums << ", in place " << c.in_place << ", skip " << c.skip
             << ", factor " << c.factor;
}

/// Host values, with statistics that belong to x.
template <typename R>
struct NormBackwardValues {
  explicit NormBackwardValues(const AddNormShape& s)
      : x(normal_values<R>(row_elements(s.batch, s.x, s.width), 1, 2.0, 0.5)),
        dx(normal_values<R>(row_elements(s.batch, s.dx, s.width), 2)),
        dy(normal_values<bfloat16>(row_elements(s.batch, s.normalised, s.width), 3)),
        scale(normal_values<float>(row_elements(s.batch), 4, 1.0, 1.0)),
        gamma(normal_values<float>(row_elements(s.width), 5, 0.5, 1.0)),
        before(normal_values<float>(row_elements(s.width), 6)),
        statistics(row_elements(s.batch, s.normalised, 2)) {
    std::vector<bfloat16> y(dy.size());
    AddNormShape shape = s;
    shape.base = s.x;
    reference::add_norm_forward<R>({.shape = shape,
                                    .base = x.data(),
                                    .gamma = gamma.data(),
                                    .beta = gamma.data(),
                                    .eps = 1e-5F,
                                    .y = y.data(),
                                    .statistics = statistics.data()});
  }
  std::vector<R> x, dx;
  std::vector<bfloat16> dy;
  std::vector<float> scale, gamma, before, statistics, factor{0.75F};
};

/// Everything that backward writes.
template <typename R>
struct NormBackwardResults {
  std::vector<R> d_base;
  std::vector<bfloat16> d_branch;
  std::vector<float> d_gamma, d_beta, d_bias;
};

template <typename R>
NormBackwardResults<R> norm_backward_on_host(const NormBackwardCase& c,
                                             const NormBackwardValues<R>& values) {
  const AddNormShape& s = c.shape;
  NormBackwardResults<R> results{
      c.in_place ? values.dx : test::poison<R>(row_elements(s.batch, s.base, s.width)),
      test::poison<bfloat16>(row_elements(s.batch, s.branch, s.width)), values.before,
      values.before, values.before};
  reference::add_norm_backward<R>({.shape = s,
                                   .dy = values.dy.data(),
                                   .x = values.x.data(),
                                   .statistics = values.statistics.data(),
                                   .gamma = values.gamma.data(),
                                   .dx = c.incoming ? values.dx.data() : nullptr,
                                   .scale = c.scale ? values.scale.data() : nullptr,
                                   .skip = {c.skip, c.factor ? values.factor.data() : nullptr},
                                   .d_base = results.d_base.data(),
                                   .d_branch = c.branch ? results.d_branch.data() : nullptr,
                                   .d_gamma = c.sums ? results.d_gamma.data() : nullptr,
                                   .d_beta = c.sums ? results.d_beta.data() : nullptr,
                                   .d_bias = c.sums && c.branch ? results.d_bias.data() : nullptr});
  return results;
}

template <typename R>
NormBackwardResults<R> norm_backward_on_device(const NormBackwardCase& c,
                                               const NormBackwardValues<R>& values) {
  const AddNormShape& s = c.shape;
  const std::size_t shift = s.width % 8 == 0 ? 8 : 1;
  const DeviceBuffer<R> x(values.x, shift);
  DeviceBuffer<R> dx(values.dx, shift);
  const DeviceBuffer<bfloat16> dy(values.dy, shift);
  const DeviceBuffer<float> scale(values.scale), gamma(values.gamma), factor(values.factor),
      statistics(values.statistics, 2);
  DeviceBuffer<R> separate(row_elements(s.batch, s.base, s.width), shift);
  DeviceBuffer<R>& d_base = c.in_place ? dx : separate;
  DeviceBuffer<bfloat16> d_branch(row_elements(s.batch, s.branch, s.width), shift);
  DeviceBuffer<float> d_gamma(values.before, 1), d_beta(values.before, 2), d_bias(values.before, 3);
  DeviceBuffer<std::byte> workspace(add_norm_backward_workspace_bytes(s.width));
  add_norm_backward<R>({.shape = s,
                        .dy = dy.data(),
                        .x = x.data(),
                        .statistics = statistics.data(),
                        .gamma = gamma.data(),
                        .dx = c.incoming ? dx.data() : nullptr,
                        .scale = c.scale ? scale.data() : nullptr,
                        .skip = {c.skip, c.factor ? factor.data() : nullptr},
                        .d_base = d_base.data(),
                        .d_branch = c.branch ? d_branch.data() : nullptr,
                        .d_gamma = c.sums ? d_gamma.data() : nullptr,
                        .d_beta = c.sums ? d_beta.data() : nullptr,
                        .d_bias = c.sums && c.branch ? d_bias.data() : nullptr},
                       workspace.data(), nullptr);
  NormBackwardResults<R> results{d_base.download(), d_branch.download(), d_gamma.download(),
                                 d_beta.download(), d_bias.download()};
  EXPECT_TRUE(d_base.guards_intact() && d_branch.guards_intact() && workspace.guards_intact());
  EXPECT_TRUE(d_gamma.guards_intact() && d_beta.guards_intact() && d_bias.guards_intact());
  return results;
}

template <typename R>
void expect_norm_backward_equals_reference(const NormBackwardCase& c) {
  SCOPED_TRACE(::testing::Message() << c << ", R of " << sizeof(R) << " bytes");
  const NormBackwardValues<R> values(c.shape);
  const auto expected = norm_backward_on_host(c, values);
  const auto got = norm_backward_on_device(c, values);
  EXPECT_TRUE(all_close(got.d_base, expected.d_base, 1e-5, 2.01 * test::rounding_of<R>()));
  EXPECT_TRUE(all_close(got.d_branch, expected.d_branch, 1e-5, 0x1.01p-7));
  const double sum_error = 4e-6 * std::sqrt(static_cast<double>(c.shape.batch * c.shape.base));
  EXPECT_TRUE(all_close(got.d_gamma, expected.d_gamma, sum_error, 2e-6));
  EXPECT_TRUE(all_close(got.d_beta, expected.d_beta, sum_error, 2e-6));
  EXPECT_TRUE(all_close(got.d_bias, expected.d_bias, sum_error, 2e-6));
  const auto again = norm_backward_on_device(c, values);
  EXPECT_TRUE(test::same_bits(again.d_base, got.d_base));
  EXPECT_TRUE(test::same_bits(again.d_branch, got.d_branch));
  EXPECT_TRUE(test::same_bits(again.d_gamma, got.d_gamma));
  EXPECT_TRUE(test::same_bits(again.d_beta, got.d_beta));
  EXPECT_TRUE(test::same_bits(again.d_bias, got.d_bias));
}

TEST_F(AddNormBackwardGpu, AllWidths) {
  for (const std::int64_t width :
       {3,   8,   10,  31,  64,   100,  128,  136,  192,  200,  256,  320,  384,  392, 500,
        512, 576, 768, 776, 1000, 1024, 1280, 1536, 2048, 2055, 3072, 3080, 4093, 4096}) {
    expect_norm_backward_equals_reference<float>({.shape = AddNormShape::dense(3, 7, width)});
    expect_norm_backward_equals_reference<bfloat16>({.shape = AddNormShape::dense(3, 7, width)});
  }
}

TEST_F(AddNormBackwardGpu, AllOptions) {
  const AddNormShape dense = AddNormShape::dense(5, 13, 192);
  AddNormShape first = AddNormShape::dense(5, 13, 384);
  first.normalised = 1;
  AddNormShape compact = first;
  compact.x = compact.branch = compact.dx = 1;
  AddNormShape two = AddNormShape::dense(9, 4, 52);
  two.normalised = two.x = 2;
  two.branch = 3;
  for (const NormBackwardCase& c : std::vector<NormBackwardCase>{
           {.shape = dense, .branch = false},
           {.shape = dense, .incoming = false},
           {.shape = dense, .branch = false, .incoming = false},
           {.shape = dense, .scale = false},
           {.shape = dense, .sums = false},
           {.shape = dense, .in_place = true},
           {.shape = dense, .in_place = true, .skip = 1.5F, .factor = true},
           {.shape = first},
           {.shape = first, .in_place = true},
           {.shape = first, .incoming = false},
           {.shape = compact},
           {.shape = compact, .branch = false, .incoming = false},
           {.shape = two, .skip = 2.0F},
           {.shape = AddNormShape::dense(1, 1, 768)},
           // More rows than the blocks of one wave hold.
           {.shape = AddNormShape::dense(128, 65, 192)},
           {.shape = AddNormShape::dense(41, 197, 384)},
           {.shape = AddNormShape::dense(19, 197, 768)},
           {.shape = AddNormShape::dense(700, 5, 33)},
       }) {
    if (test::too_large_here(c.shape.batch * c.shape.base * c.shape.width)) continue;
    expect_norm_backward_equals_reference<float>(c);
    expect_norm_backward_equals_reference<bfloat16>(c);
  }
}

#endif

}  // namespace
}  // namespace ablate::kernels
