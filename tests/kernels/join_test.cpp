#include "methods/kernels/join.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

TEST(Join, ForwardFollowsItsFormula) {
  const std::vector<float> base{1, 2, 3, 4}, scale{0.5F, 2.0F};
  const std::vector<bfloat16> branch(4, from_float<bfloat16>(4.0F));
  std::vector<float> x(4);
  reference::join_forward<float>({.batch = 2,
                                  .tokens = 1,
                                  .width = 2,
                                  .base = base.data(),
                                  .branch = branch.data(),
                                  .scale = scale.data(),
                                  .skip = {.value = 3.0F},
                                  .x = x.data()});
  EXPECT_EQ(x, (std::vector<float>{5, 8, 17, 20}));
}

TEST(Join, BackwardFollowsItsFormula) {
  const std::vector<float> dx{1, 2, 3, 4}, scale{0.5F, 2.0F};
  std::vector<float> d_base(4), d_bias{100, 200};
  std::vector<bfloat16> d_branch(4);
  reference::join_backward<float>({.batch = 2,
                                   .tokens = 1,
                                   .width = 2,
                                   .dx = dx.data(),
                                   .scale = scale.data(),
                                   .skip = {.value = 3.0F},
                                   .d_base = d_base.data(),
                                   .d_branch = d_branch.data(),
                                   .d_bias = d_bias.data()});
  EXPECT_EQ(d_base, (std::vector<float>{3, 6, 9, 12}));
  EXPECT_EQ(test::as_floats(d_branch), (std::vector<float>{0.5F, 1, 6, 8}));
  EXPECT_EQ(d_bias, (std::vector<float>{106.5F, 209}));
}

#if ABLATE_HAS_CUDA

using test::all_close;
using test::DeviceBuffer;
using test::normal_values;
using JoinGpu = test::GpuTest;

struct JoinCase {
  std::int64_t batch, tokens, width;
  bool branch = true, scale = true, base = true, bias = true, in_place = false;
  float skip = 1.0F;
  bool factor = false;

  std::size_t count() const { return static_cast<std::size_t>(batch * tokens * width); }
  std::size_t shift() const { return width % 8 == 0 ? 8 : 1; }
};

std::ostream& operator<<(std::ostream& out, const JoinCase& c) {
  return out << c.batch << " x " << c.tokens << " x " << c.width << ", branch " << c.branch
             << ", scale " << c.scale << ", base " << c.base << ", bias " << c.bias << ", in place "
             << c.in_place << ", skip " << c.skip << ", factor " << c.factor;
}

const std::vector<JoinCase> kJoinCases{
    {.batch = 1, .tokens = 1, .width = 1},
    {.batch = 3, .tokens = 5, .width = 8},
    {.batch = 3, .tokens = 5, .width = 52, .skip = 1.75F},
    {.batch = 7, .tokens = 65, .width = 192, .branch = false, .bias = false, .skip = 2.0F},
    {.batch = 7, .tokens = 65, .width = 192, .skip = 1.5F, .factor = true},
    {.batch = 7, .tokens = 65, .width = 192, .in_place = true, .skip = 1.5F},
    {.batch = 4, .tokens = 197, .width = 384, .base = false},
    {.batch = 4, .tokens = 197, .width = 384, .scale = false, .bias = false},
    {.batch = 2, .tokens = 3, .width = 4104},
    {.batch = 70000, .tokens = 1, .width = 8},
};

template <typename R>
void expect_join_forward_equals_reference(const JoinCase& c) {
  SCOPED_TRACE(::testing::Message() << c << ", R of " << sizeof(R) << " bytes");
  const auto base = normal_values<R>(c.count(), 1);
  const auto branch = normal_values<bfloat16>(c.count(), 2);
  const auto scale = normal_values<float>(static_cast<std::size_t>(c.batch), 3, 1.0, 1.0);
  const std::vector<float> factor{0.75F};
  std::vector<R> expected(c.count());
  JoinForward<R> arguments{.batch = c.batch,
                           .tokens = c.tokens,
                           .width = c.width,
                           .base = base.data(),
                           .branch = c.branch ? branch.data() : nullptr,
                           .scale = c.scale ? scale.data() : nullptr,
                           .skip = {c.skip, c.factor ? factor.data() : nullptr},
                           .x = expected.data()};
  reference::join_forward(arguments);
  DeviceBuffer<R> device_base(base, c.shift());
  const DeviceBuffer<bfloat16> device_branch(branch, c.shift());
  const DeviceBuffer<float> device_scale(scale), device_factor(factor);
  DeviceBuffer<R> separate(c.count(), c.shift());
  DeviceBuffer<R>& x = c.in_place ? device_base : separate;
  arguments.base = device_base.data();
  arguments.branch = c.branch ? device_branch.data() : nullptr;
  arguments.scale = c.scale ? device_scale.data() : nullptr;
  arguments.skip.factor = c.factor ? device_factor.data() : nullptr;
  arguments.x = x.data();
  join_forward(arguments, nullptr);
  EXPECT_TRUE(all_close(x.download(), expected, 1e-6, 2.01 * test::rounding_of<R>()));
  EXPECT_TRUE(x.guards_intact());
}

template <typename R>
void expect_join_backward_equals_reference(const JoinCase& c) {
  SCOPED_TRACE(::testing::Message() << c << ", R of " << sizeof(R) << " bytes");
  const auto dx = normal_values<R>(c.count(), 1);
  const auto scale = normal_values<float>(static_cast<std::size_t>(c.batch), 3, 1.0, 1.0);
  const auto before = normal_values<float>(static_cast<std::size_t>(c.width), 4);
  const std::vector<float> factor{0.75F};
  auto d_base = c.in_place ? dx : test::poison<R>(c.count());
  auto d_branch = test::poison<bfloat16>(c.count());
  auto d_bias = before;
  JoinBackward<R> arguments{.batch = c.batch,
                            .tokens = c.tokens,
                            .width = c.width,
                            .dx = dx.data(),
                            .scale = c.scale ? scale.data() : nullptr,
                            .skip = {c.skip, c.factor ? factor.data() : nullptr},
                            .d_base = c.base ? d_base.data() : nullptr,
                            .d_branch = c.branch ? d_branch.data() : nullptr,
                            .d_bias = c.bias ? d_bias.data() : nullptr};
  reference::join_backward(arguments);
  const DeviceBuffer<float> device_scale(scale), device_factor(factor);
  DeviceBuffer<std::byte> workspace(join_backward_workspace_bytes(c.batch, c.tokens, c.width));
  std::vector<float> first;
  for (int launch = 0; launch < 2; ++launch) {
    DeviceBuffer<R> device_dx(dx, c.shift());
    DeviceBuffer<R> separate(c.count(), c.shift());
    DeviceBuffer<R>& device_base = c.in_place ? device_dx : separate;
    DeviceBuffer<bfloat16> device_branch(c.count(), c.shift());
    DeviceBuffer<float> device_bias(before, 3);
    arguments.dx = device_dx.data();
    arguments.scale = c.scale ? device_scale.data() : nullptr;
    arguments.skip.factor = c.factor ? device_factor.data() : nullptr;
    arguments.d_base = c.base ? device_base.data() : nullptr;
    arguments.d_branch = c.branch ? device_branch.data() : nullptr;
    arguments.d_bias = c.bias ? device_bias.data() : nullptr;
    join_backward(arguments, workspace.data(), nullptr);
    const double sum_error = 3e-6 * std::sqrt(static_cast<double>(c.batch * c.tokens));
    const auto sums = device_bias.download();
    EXPECT_TRUE(all_close(device_base.download(), d_base, 1e-7, 2.01 * test::rounding_of<R>()));
    EXPECT_TRUE(all_close(device_branch.download(), d_branch, 1e-7, 0x1.01p-7));
    EXPECT_TRUE(all_close(sums, d_bias, sum_error, 2e-6));
    EXPECT_TRUE(device_base.guards_intact() && device_branch.guards_intact());
    EXPECT_TRUE(device_bias.guards_intact() && workspace.guards_intact());
    if (launch == 0) first = sums;
    EXPECT_TRUE(test::same_bits(sums, first));
  }
}

TEST_F(JoinGpu, ForwardEqualsTheReference) {
  for (const JoinCase& c : kJoinCases) {
    if (test::too_large_here(static_cast<std::int64_t>(c.count()))) continue;
    expect_join_forward_equals_reference<float>(c);
    expect_join_forward_equals_reference<bfloat16>(c);
  }
}

TEST_F(JoinGpu, BackwardEqualsTheReference) {
  for (const JoinCase& c : kJoinCases) {
    if (test::too_large_here(static_cast<std::int64_t>(c.count()))) continue;
    expect_join_backward_equals_reference<float>(c);
    expect_join_backward_equals_reference<bfloat16>(c);
  }
}

#endif

}  // namespace
}  // namespace ablate::kernels
