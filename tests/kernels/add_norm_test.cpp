#include "methods/kernels/add_norm.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

using test::normal_values;

TEST(AddNorm, JoinsAndNormalises) {
  const std::vector<float> base{1, 2, 3, 4};
  const std::vector<bfloat16> branch(4, from_float<bfloat16>(2.0F));
  const std::vector<float> scale{0.5F, 0.0F}, gamma{1, 2}, beta{10, 20};
  std::vector<float> x(4), statistics(4);
  std::vector<bfloat16> y(4);
  reference::add_norm_forward<float>({.shape = AddNormShape::dense(2, 1, 2),
                                      .base = base.data(),
                                      .branch = branch.data(),
                                      .scale = scale.data(),
                                      .skip = {.value = 2.0F},
                                      .gamma = gamma.data(),
                                      .beta = beta.data(),
                                      .eps = 0.0F,
                                      .x = x.data(),
                                      .y = y.data(),
                                      .statistics = statistics.data()});
  EXPECT_EQ(x, (std::vector<float>{3, 5, 6, 8}));
  EXPECT_EQ(statistics, (std::vector<float>{4, 1, 7, 1}));
  EXPECT_EQ(test::as_floats(y), (std::vector<float>{9, 22, 9, 22}));
}

TEST(AddNorm, TensorsMayHoldMoreTokensThanAreNormalised) {
  // Two samples of three tokens; the first of each is normalised and has a branch.
  const std::vector<float> base{0, 2, 7, 7, 7, 7, 4, 8, 7, 7, 7, 7};
  const std::vector<bfloat16> branch(4, from_float<bfloat16>(1.0F));
  const std::vector<float> gamma{1, 1}, beta{0, 0};
  std::vector<float> x(4);
  std::vector<bfloat16> y(4);
  reference::add_norm_forward<float>(
      {.shape = {.batch = 2, .width = 2, .normalised = 1, .base = 3, .branch = 1, .x = 1, .dx = 1},
       .base = base.data(),
       .branch = branch.data(),
       .gamma = gamma.data(),
       .beta = beta.data(),
       .eps = 0.0F,
       .x = x.data(),
       .y = y.data()});
  EXPECT_EQ(x, (std::vector<float>{1, 3, 5, 9}));
  EXPECT_EQ(test::as_floats(y), (std::vector<float>{-1, 1, -1, 1}));
}

#if ABLATE_HAS_CUDA

using test::all_close;
using test::DeviceBuffer;
using AddNormGpu = test::GpuTest;

struct NormForwardCase {
  AddNormShape shape;
  bool branch = true;
  bool scale = true;
  float skip = 1.0F;
  bool factor = false;
  bool in_place = false;
};

std::ostream& operator<<(std::ostream& out, const NormForwardCase& c) {
  return out << c.shape.batch << " x " << c.shape.base << " x " << c.shape.width << ", normalised "
             << c.shape.normalised << ", branch " << c.branch << " of " << c.shape.branch
             << ", x of " << c.shape.x << ", scale " << c.scale << ", skip " << c.skip
             << ", factor " << c.factor << ", in place " << c.in_place;
}

std::size_t norm_elements(std::int64_t a, std::int64_t b, std::int64_t c = 1) {
  return static_cast<std::size_t>(a * b * c);
}

/// Host values of one case. Device and reference see the same ones.
template <typename R>
struct NormForwardValues {
  explicit NormForwardValues(const NormForwardCase& c)
      : base(normal_values<R>(norm_elements(c.shape.batch, c.shape.base, c.shape.width), 1, 2.0,
                              0.5)),
        branch(normal_values<bfloat16>(norm_elements(c.shape.batch, c.shape.branch, c.shape.width),
                                       2)),
        scale(normal_values<float>(norm_elements(c.shape.batch, 1), 3, 1.0, 1.0)),
        gamma(normal_values<float>(norm_elements(c.shape.width, 1), 4, 0.5, 1.0)),
        beta(normal_values<float>(norm_elements(c.shape.width, 1), 5)),
        factor{0.75F} {}

  std::vector<R> base;
  std::vector<bfloat16> branch;
  std::vector<float> scale, gamma, beta, factor;
};

/// x of the device is the reference's but for the last bit; y and statistics are compared with the
/// reference's for the device's own x, so that a rounding of x does not blur them.
template <typename R>
void expect_forward_equals_reference(const NormForwardCase& c) {
  SCOPED_TRACE(::testing::Message() << c << ", R of " << sizeof(R) << " bytes");
  const AddNormShape& shape = c.shape;
  const NormForwardValues<R> values(c);
  const std::size_t outputs = norm_elements(shape.batch, shape.normalised, shape.width);
  const std::size_t xs = norm_elements(shape.batch, shape.x, shape.width);
  const std::size_t rows = norm_elements(shape.batch, shape.normalised);
  const bool has_x = c.branch || c.skip != 1.0F || c.factor;
  std::vector<R> x = c.in_place ? values.base : test::poison<R>(xs);
  std::vector<bfloat16> y(outputs);
  AddNormForward<R> arguments{.shape = shape,
                              .base = values.base.data(),
                              .branch = c.branch ? values.branch.data() : nullptr,
                              .scale = c.scale ? values.scale.data() : nullptr,
                              .skip = {c.skip, c.factor ? values.factor.data() : nullptr},
                              .gamma = values.gamma.data(),
                              .beta = values.beta.data(),
                              .eps = 1e-5F,
                              .x = has_x ? x.data() : nullptr,
                              .y = y.data()};
  reference::add_norm_forward(arguments);

  const std::size_t shift = shape.width % 8 == 0 ? 8 : 1;
  DeviceBuffer<R> base(values.base, shift);
  const DeviceBuffer<bfloat16> branch(values.branch, shift);
  const DeviceBuffer<float> scale(values.scale), gamma(values.gamma), beta(values.beta),
      factor(values.factor);
  DeviceBuffer<R> separate_x(xs, shift);
  DeviceBuffer<R>& device_x = c.in_place ? base : separate_x;
  DeviceBuffer<bfloat16> device_y(outputs, shift);
  DeviceBuffer<float> device_statistics(2 * rows, 2);
  arguments.base = base.data();
  arguments.branch = c.branch ? branch.data() : nullptr;
  arguments.scale = c.scale ? scale.data() : nullptr;
  arguments.skip.factor = c.factor ? factor.data() : nullptr;
  arguments.gamma = gamma.data();
  arguments.beta = beta.data();
  arguments.x = has_x ? device_x.data() : nullptr;
  arguments.y = device_y.data();
  arguments.statistics = device_statistics.data();
  add_norm_forward(arguments, nullptr);

  const std::vector<R> got_x = has_x ? device_x.download() : values.base;
  EXPECT_TRUE(!has_x || all_close(got_x, x, 1e-6, 2.01 * test::rounding_of<R>()));
  std::vector<float> statistics(2 * rows);
  AddNormShape norm_shape = shape;
  norm_shape.base = has_x ? shape.x : shape.base;
  reference::add_norm_forward<R>({.shape = norm_shape,
                                  .base = got_x.data(),
                                  .gamma = values.gamma.data(),
                                  .beta = values.beta.data(),
                                  .eps = 1e-5F,
                                  .y = y.data(),
                                  .statistics = statistics.data()});
  const std::vector<bfloat16> got_y = device_y.download();
  EXPECT_TRUE(all_close(device_statistics.download(), statistics, 4e-6, 2e-6));
  EXPECT_TRUE(all_close(got_y, y, 4e-6, 2.01 * test::rounding_of<bfloat16>()));
  EXPECT_TRUE(base.guards_intact() && device_x.guards_intact() && device_y.guards_intact() &&
              device_statistics.guards_intact());
  if (c.in_place) return;
  add_norm_forward(arguments, nullptr);
  EXPECT_TRUE(test::same_bits(device_y.download(), got_y));
}

TEST_F(AddNormGpu, ForwardOfAllWidths) {
  for (const std::int64_t width :
       {1,    2,    7,    8,    10,   16,   31,   63,   64,   100,  128, 136,
        192,  200,  256,  264,  320,  384,  392,  500,  512,  576,  768, 776,
        1000, 1024, 1280, 1536, 1600, 2048, 2055, 3072, 3080, 4093, 4096}) {
    expect_forward_equals_reference<float>({.shape = AddNormShape::dense(3, 7, width)});
    expect_forward_equals_reference<bfloat16>({.shape = AddNormShape::dense(3, 7, width)});
  }
}

TEST_F(AddNormGpu, ForwardOfAllOptions) {
  const AddNormShape dense = AddNormShape::dense(5, 13, 192);
  AddNormShape first = AddNormShape::dense(5, 13, 384);
  first.normalised = 1;
  AddNormShape compact = first;
  compact.x = compact.branch = 1;
  AddNormShape two = AddNormShape::dense(9, 4, 52);
  two.normalised = two.x = 2;
  for (const NormForwardCase& c : std::vector<NormForwardCase>{
           {.shape = dense, .branch = false},
           {.shape = dense, .branch = false, .skip = 2.0F},
           {.shape = dense, .branch = false, .skip = 2.0F, .in_place = true},
           {.shape = dense, .scale = false},
           {.shape = dense, .skip = 1.5F, .factor = true},
           {.shape = dense, .in_place = true},
           {.shape = first, .branch = false},
           {.shape = first},
           {.shape = first, .in_place = true},
           {.shape = compact},
           {.shape = compact, .factor = true},
           {.shape = two},
           {.shape = two, .branch = false},
           {.shape = AddNormShape::dense(1, 1, 768)},
           {.shape = AddNormShape::dense(128, 65, 192)},
           {.shape = AddNormShape::dense(33, 197, 384)},
       }) {
    if (test::too_large_here(c.shape.batch * c.shape.base * c.shape.width)) continue;
    expect_forward_equals_reference<float>(c);
    expect_forward_equals_reference<bfloat16>(c);
  }
}

TEST_F(AddNormGpu, WidthsOutOfRangeAreRefused) {
  AddNormForward<float> arguments{.shape = AddNormShape::dense(1, 1, 4104)};
  EXPECT_THROW(add_norm_forward(arguments, nullptr), BugError);
}

TEST_F(AddNormGpu, LargeMeansCostNoPrecision) {
  // Variance 1 around a mean of 1000: E[x^2] - E[x]^2 would leave two digits.
  const auto base = normal_values<float>(384, 1, 1.0, 1000.0);
  const std::vector<float> gamma(384, 1.0F), beta(384, 0.0F);
  std::vector<bfloat16> y(384);
  std::vector<float> statistics(2);
  AddNormForward<float> arguments{.shape = AddNormShape::dense(1, 1, 384),
                                  .base = base.data(),
                                  .gamma = gamma.data(),
                                  .beta = beta.data(),
                                  .y = y.data(),
                                  .statistics = statistics.data()};
  reference::add_norm_forward(arguments);
  const DeviceBuffer<float> device_base(base), device_gamma(gamma), device_beta(beta);
  DeviceBuffer<bfloat16> device_y(384);
  DeviceBuffer<float> device_statistics(2);
  arguments.base = device_base.data();
  arguments.gamma = device_gamma.data();
  arguments.beta = device_beta.data();
  arguments.y = device_y.data();
  arguments.statistics = device_statistics.data();
  add_norm_forward(arguments, nullptr);
  EXPECT_TRUE(all_close(device_statistics.download(), statistics, 0.0, 2e-6));
}

#endif

}  // namespace
}  // namespace ablate::kernels
