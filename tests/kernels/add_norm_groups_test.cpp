#include <cmath>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "methods/kernels/add_norm.h"
#include "methods/kernels/join.h"
#include "methods/kernels/token_merge.h"
#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

// Joins that average tokens by groups on their way.

namespace ablate::kernels {
namespace {

using test::normal_values;

std::size_t group_elements(std::int64_t a, std::int64_t b = 1, std::int64_t c = 1) {
  return static_cast<std::size_t>(a * b * c);
}

/// N tokens in random groups with random sizes, and everything that a join reads.
struct GroupedJoin {
  std::int64_t batch, tokens, groups, width;
  bool branch = true;
  std::vector<std::int32_t> positions, offsets, members;
  std::vector<float> sizes, merged_sizes, shares;
  std::vector<float> base, dx, gamma, beta, before;
  std::vector<bfloat16> pending, dy;
  std::vector<float> scale, factor{0.75F};

  GroupedJoin(std::int64_t b, std::int64_t n, std::int64_t g, std::int64_t w)
      : batch(b), tokens(n), groups(g), width(w) {
    RandomStream stream(31, Purpose::Test);
    for (std::int64_t i = 0; i < batch * tokens; ++i) {
      const std::int64_t token = i % tokens;  // every group gets one
      positions.push_back(static_cast<std::int32_t>(
          token < groups ? groups - 1 - token : stream.below(static_cast<std::uint32_t>(groups))));
      sizes.push_back(static_cast<float>(1 + stream.below(9)));
    }
    offsets.resize(group_elements(batch, groups + 1));
    members.resize(positions.size());
    shares.resize(positions.size());
    merged_sizes.resize(group_elements(batch, groups));
    reference::group_tokens(
        {.batch = batch,
         .tokens = tokens,
         .new_tokens = groups,
         .groups = {positions.data(), offsets.data(), members.data()},
         .weights = {
             .sizes = sizes.data(), .merged_sizes = merged_sizes.data(), .shares = shares.data()}});
    base = normal_values<float>(group_elements(batch, tokens, width), 1, 2.0, 0.5);
    pending = normal_values<bfloat16>(base.size(), 2);
    scale = normal_values<float>(group_elements(batch), 3, 1.0, 1.0);
    gamma = normal_values<float>(group_elements(width), 4, 0.5, 1.0);
    beta = normal_values<float>(group_elements(width), 5);
    before = normal_values<float>(group_elements(width), 6);
    dy = normal_values<bfloat16>(group_elements(batch, groups, width), 7);
    dx = normal_values<float>(dy.size(), 8);
  }

  AddNormShape shape() const {
    return {.batch = batch,
            .width = width,
            .normalised = groups,
            .base = tokens,
            .branch = tokens,
            .x = groups,
            .dx = groups};
  }
  JoinGroups join_groups() const { return {offsets.data(), members.data(), shares.data()}; }
};

struct GroupedOutputs {
  std::vector<float> x, statistics;
  std::vector<bfloat16> y;

  explicit GroupedOutputs(const GroupedJoin& c)
      : x(c.dx.size()), statistics(group_elements(c.batch, c.groups, 2)), y(c.dx.size()) {}
};

struct GroupedGradients {
  std::vector<float> d_base, d_gamma, d_beta, d_bias;
  std::vector<bfloat16> d_branch;

  explicit GroupedGradients(const GroupedJoin& c)
      : d_base(c.base.size()),
        d_gamma(c.before),
        d_beta(c.before),
        d_bias(c.before),
        d_branch(c.base.size()) {}
};

AddNormForward<float> host_forward(const GroupedJoin& c, GroupedOutputs& out) {
  return {.shape = c.shape(),
          .base = c.base.data(),
          .branch = c.branch ? c.pending.data() : nullptr,
          .scale = c.scale.data(),
          .skip = {1.5F, c.factor.data()},
          .groups = c.join_groups(),
          .gamma = c.gamma.data(),
          .beta = c.beta.data(),
          .eps = 1e-5F,
          .x = out.x.data(),
          .y = out.y.data(),
          .statistics = out.statistics.data()};
}

AddNormBackward<float> host_backward(const GroupedJoin& c, const GroupedOutputs& forward,
                                     GroupedGradients& out) {
  return {.shape = c.shape(),
          .dy = c.dy.data(),
          .x = forward.x.data(),
          .statistics = forward.statistics.data(),
          .gamma = c.gamma.data(),
          .dx = c.dx.data(),
          .scale = c.scale.data(),
          .skip = {1.5F, c.factor.data()},
          .groups = c.join_groups(),
          .d_base = out.d_base.data(),
          .d_branch = c.branch ? out.d_branch.data() : nullptr,
          .d_gamma = out.d_gamma.data(),
          .d_beta = out.d_beta.data(),
          .d_bias = c.branch ? out.d_bias.data() : nullptr};
}

TEST(AddNormGroups, AveragesJoinedRows) {
  // Tokens 0 and 2 are one group, of sizes 3 and 1; token 1 is alone.
  const std::vector<std::int32_t> offsets{0, 2, 3}, members{0, 2, 1};
  const std::vector<float> shares{0.75F, 1.0F, 0.25F}, base{2, 4, 1, 7, 6, 0}, gamma{1, 1},
      beta{0, 0};
  const std::vector<bfloat16> pending(6, from_float<bfloat16>(1.0F));
  std::vector<float> x(4);
  std::vector<bfloat16> y(4);
  reference::add_norm_forward<float>(
      {.shape = {.batch = 1, .width = 2, .normalised = 2, .base = 3, .branch = 3, .x = 2, .dx = 2},
       .base = base.data(),
       .branch = pending.data(),
       .groups = {offsets.data(), members.data(), shares.data()},
       .gamma = gamma.data(),
       .beta = beta.data(),
       .eps = 0.0F,
       .x = x.data(),
       .y = y.data()});
  EXPECT_EQ(x, (std::vector<float>{4, 4, 2, 8}));
  EXPECT_EQ(to_float(y[2]), -1.0F);
  EXPECT_EQ(to_float(y[3]), 1.0F);
}

// The chain rule: norm backward on the merged stream, then merge backward, then join backward.
TEST(AddNormGroups, BackwardIsThatOfTheThreeSteps) {
  const GroupedJoin c(2, 7, 4, 5);
  GroupedOutputs forward(c);
  reference::add_norm_forward(host_forward(c, forward));
  GroupedGradients got(c);
  reference::add_norm_backward(host_backward(c, forward, got));

  GroupedGradients expected(c);
  std::vector<float> d_merged(c.dx.size()), d_joined(c.base.size());
  AddNormShape merged = c.shape();
  merged.base = c.groups;
  reference::add_norm_backward<float>({.shape = merged,
                                       .dy = c.dy.data(),
                                       .x = forward.x.data(),
                                       .statistics = forward.statistics.data(),
                                       .gamma = c.gamma.data(),
                                       .dx = c.dx.data(),
                                       .d_base = d_merged.data(),
                                       .d_gamma = expected.d_gamma.data(),
                                       .d_beta = expected.d_beta.data()});
  reference::merge_tokens_backward<float>({.batch = c.batch,
                                           .tokens = c.tokens,
                                           .new_tokens = c.groups,
                                           .width = c.width,
                                           .grad_merged = d_merged.data(),
                                           .sizes = c.sizes.data(),
                                           .merged_sizes = c.merged_sizes.data(),
                                           .positions = c.positions.data(),
                                           .grad_x = d_joined.data()});
  reference::join_backward<float>({.batch = c.batch,
                                   .tokens = c.tokens,
                                   .width = c.width,
                                   .dx = d_joined.data(),
                                   .scale = c.scale.data(),
                                   .skip = {1.5F, c.factor.data()},
                                   .d_base = expected.d_base.data(),
                                   .d_branch = expected.d_branch.data(),
                                   .d_bias = expected.d_bias.data()});
  EXPECT_TRUE(test::all_close(got.d_base, expected.d_base, 1e-6, 1e-6));
  EXPECT_TRUE(test::all_close(got.d_branch, expected.d_branch, 1e-6, 0x1.01p-7));
  EXPECT_TRUE(test::all_close(got.d_gamma, expected.d_gamma, 1e-6, 1e-6));
  EXPECT_TRUE(test::all_close(got.d_beta, expected.d_beta, 1e-6, 1e-6));
  EXPECT_TRUE(test::all_close(got.d_bias, expected.d_bias, 1e-5, 1e-6));
}

#if ABLATE_HAS_CUDA

using test::all_close;
using test::DeviceBuffer;
using AddNormGroupsGpu = test::GpuTest;

/// What a grouped join reads, on the device.
struct DeviceJoin {
  DeviceBuffer<std::int32_t> offsets, members;
  DeviceBuffer<float> shares, base, scale, gamma, beta, factor;
  DeviceBuffer<bfloat16> pending;

  DeviceJoin(const GroupedJoin& c, std::size_t shift)
      : offsets(c.offsets, 1),
        members(c.members, 1),
        shares(c.shares, 1),
        base(c.base, shift),
        scale(c.scale),
        gamma(c.gamma),
        beta(c.beta),
        factor(c.factor),
        pending(c.pending, shift) {}

  JoinGroups groups() const { return {offsets.data(), members.data(), shares.data()}; }
};

GroupedOutputs forward_on_device(const GroupedJoin& c, const DeviceJoin& in, std::size_t shift) {
  GroupedOutputs out(c);
  DeviceBuffer<float> x(out.x.size(), shift), statistics(out.statistics.size(), 2);
  DeviceBuffer<bfloat16> y(out.y.size(), shift);
  AddNormForward<float> arguments = host_forward(c, out);
  arguments.base = in.base.data();
  arguments.branch = c.branch ? in.pending.data() : nullptr;
  arguments.scale = in.scale.data();
  arguments.skip.factor = in.factor.data();
  arguments.groups = in.groups();
  arguments.gamma = in.gamma.data();
  arguments.beta = in.beta.data();
  arguments.x = x.data();
  arguments.y = y.data();
  arguments.statistics = statistics.data();
  add_norm_forward(arguments, nullptr);
  out.x = x.download();
  out.y = y.download();
  out.statistics = statistics.download();
  EXPECT_TRUE(x.guards_intact() && y.guards_intact() && statistics.guards_intact());
  return out;
}

GroupedGradients backward_on_device(const GroupedJoin& c, const DeviceJoin& in,
                                    const GroupedOutputs& forward, std::size_t shift) {
  GroupedGradients out(c);
  const DeviceBuffer<float> x(forward.x, shift), statistics(forward.statistics, 2), dx(c.dx, shift);
  const DeviceBuffer<bfloat16> dy(c.dy, shift);
  DeviceBuffer<float> d_base(out.d_base.size(), shift), d_gamma(c.before, 1), d_beta(c.before, 2),
      d_bias(c.before, 3);
  DeviceBuffer<bfloat16> d_branch(out.d_branch.size(), shift);
  DeviceBuffer<std::byte> workspace(add_norm_backward_workspace_bytes(c.width));
  AddNormBackward<float> arguments = host_backward(c, forward, out);
  arguments.dy = dy.data();
  arguments.x = x.data();
  arguments.statistics = statistics.data();
  arguments.gamma = in.gamma.data();
  arguments.dx = dx.data();
  arguments.scale = in.scale.data();
  arguments.skip.factor = in.factor.data();
  arguments.groups = in.groups();
  arguments.d_base = d_base.data();
  arguments.d_branch = c.branch ? d_branch.data() : nullptr;
  arguments.d_gamma = d_gamma.data();
  arguments.d_beta = d_beta.data();
  arguments.d_bias = c.branch ? d_bias.data() : nullptr;
  add_norm_backward(arguments, workspace.data(), nullptr);
  out.d_base = d_base.download();
  if (c.branch) out.d_branch = d_branch.download();
  out.d_gamma = d_gamma.download();
  out.d_beta = d_beta.download();
  out.d_bias = d_bias.download();
  EXPECT_TRUE(d_base.guards_intact() && d_branch.guards_intact() && d_gamma.guards_intact() &&
              d_beta.guards_intact() && d_bias.guards_intact() && workspace.guards_intact());
  return out;
}

void expect_grouped_join_equals_reference(const GroupedJoin& c) {
  SCOPED_TRACE(::testing::Message() << c.batch << " x " << c.tokens << " tokens in " << c.groups
                                    << " groups of width " << c.width << ", branch " << c.branch);
  const std::size_t shift = c.width % 8 == 0 ? 8 : 1;
  const DeviceJoin in(c, shift);
  GroupedOutputs expected(c);
  reference::add_norm_forward(host_forward(c, expected));
  const GroupedOutputs got = forward_on_device(c, in, shift);
  EXPECT_TRUE(all_close(got.x, expected.x, 2e-6, 2e-6));
  EXPECT_TRUE(all_close(got.y, expected.y, 2e-5, 2.01 * test::rounding_of<bfloat16>()));

  GroupedGradients gradients(c);
  reference::add_norm_backward(host_backward(c, got, gradients));
  const GroupedGradients found = backward_on_device(c, in, got, shift);
  EXPECT_TRUE(all_close(found.d_base, gradients.d_base, 1e-5, 1e-6));
  EXPECT_TRUE(all_close(found.d_branch, gradients.d_branch, 1e-5, 0x1.01p-7));
  const double sum_error = 8e-6 * std::sqrt(static_cast<double>(c.batch * c.tokens));
  EXPECT_TRUE(all_close(found.d_gamma, gradients.d_gamma, sum_error, 2e-6));
  EXPECT_TRUE(all_close(found.d_beta, gradients.d_beta, sum_error, 2e-6));
  EXPECT_TRUE(all_close(found.d_bias, gradients.d_bias, sum_error, 2e-6));

  EXPECT_TRUE(test::same_bits(forward_on_device(c, in, shift).y, got.y));
  const GroupedGradients again = backward_on_device(c, in, got, shift);
  EXPECT_TRUE(test::same_bits(again.d_base, found.d_base));
  EXPECT_TRUE(test::same_bits(again.d_bias, found.d_bias));
}

TEST_F(AddNormGroupsGpu, EqualTheReference) {
  struct Size {
    std::int64_t batch, tokens, groups, width;
  };
  for (const Size& s : {Size{3, 7, 4, 384}, Size{1, 1, 1, 8}, Size{2, 9, 1, 192}, Size{2, 9, 9, 33},
                        Size{5, 197, 184, 384}, Size{3, 65, 50, 192}, Size{3, 101, 87, 768},
                        Size{2, 33, 20, 2055}, Size{1, 6, 5, 4096}, Size{700, 5, 3, 96}}) {
    GroupedJoin c(s.batch, s.tokens, s.groups, s.width);
    expect_grouped_join_equals_reference(c);
    c.branch = false;
    expect_grouped_join_equals_reference(c);
  }
}

#endif

}  // namespace
}  // namespace ablate::kernels
