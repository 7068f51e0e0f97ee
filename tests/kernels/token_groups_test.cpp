#include "methods/kernels/token_groups.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

TEST(TokenGroups, SharesComeFromSizes) {
  // Tokens 0 and 2 are one group, of sizes 3 and 1; token 1 is alone.
  std::vector<std::int32_t> positions{0, 1, 0}, offsets(3), members(3);
  const std::vector<float> sizes{3, 2, 1};
  std::vector<float> merged_sizes(2), log_sizes(2), shares(3);
  reference::group_tokens({.batch = 1,
                           .tokens = 3,
                           .new_tokens = 2,
                           .groups = {positions.data(), offsets.data(), members.data()},
                           .weights = {.sizes = sizes.data(),
                                       .merged_sizes = merged_sizes.data(),
                                       .log_sizes = log_sizes.data(),
                                       .shares = shares.data()}});
  EXPECT_EQ(merged_sizes, (std::vector<float>{4, 2}));
  EXPECT_EQ(shares, (std::vector<float>{0.75F, 1.0F, 0.25F}));
  EXPECT_FLOAT_EQ(log_sizes[0], std::log(4.0F));
  EXPECT_FLOAT_EQ(log_sizes[1], std::log(2.0F));
}

#if ABLATE_HAS_CUDA

using test::DeviceBuffer;
using TokenGroupsGpu = test::GpuTest;

/// Sizes are small integers, so that sums of them are exact.
void expect_weights_equal_reference(TokenGrouping on_host, TokenGrouping on_device) {
  const auto tokens = static_cast<std::size_t>(on_host.batch * on_host.tokens);
  const auto groups = static_cast<std::size_t>(on_host.batch * on_host.new_tokens);
  for (const bool sized : {false, true}) {
    std::vector<float> sizes(tokens), merged(groups), logs(groups), shares(tokens);
    for (std::size_t i = 0; i < tokens; ++i) sizes[i] = static_cast<float>(1 + i % 7);
    on_host.weights = {sized ? sizes.data() : nullptr, merged.data(), logs.data(), shares.data()};
    reference::weigh_groups(on_host);
    const DeviceBuffer<float> s(sizes, 1);
    DeviceBuffer<float> m(groups, 1), l(groups), h(tokens, 3);
    on_device.weights = {sized ? s.data() : nullptr, m.data(), l.data(), h.data()};
    group_tokens(on_device, nullptr);
    EXPECT_EQ(m.download(), merged);
    EXPECT_TRUE(test::all_close(l.download(), logs, 1e-6, 1e-6));
    EXPECT_TRUE(test::all_close(h.download(), shares, 0.0, 1e-7));
    EXPECT_TRUE(m.guards_intact() && l.guards_intact() && h.guards_intact());
  }
}

TEST_F(TokenGroupsGpu, GroupsAndChainsEqualTheReference) {
  for (const std::int64_t tokens : {1, 7, 197, 1025, 4096}) {
    SCOPED_TRACE(tokens);
    if (test::too_large_here(tokens * tokens)) continue;  // each token looks at all before it
    constexpr std::int64_t kBatch = 2;
    const std::int64_t groups = (tokens + 2) / 3;
    RandomStream stream(13, Purpose::Test);
    std::vector<std::int32_t> positions;
    for (std::int64_t i = 0; i < kBatch * tokens; ++i) {
      const std::int64_t n = i % tokens;  // every group gets one
      positions.push_back(static_cast<std::int32_t>(
          n < groups ? groups - 1 - n : stream.below(static_cast<std::uint32_t>(groups))));
    }
    std::vector<std::int32_t> offsets(static_cast<std::size_t>(kBatch * (groups + 1))),
        members(positions.size());
    const TokenGrouping on_host{.batch = kBatch,
                                .tokens = tokens,
                                .new_tokens = groups,
                                .groups = {positions.data(), offsets.data(), members.data()}};
    reference::group_tokens(on_host);
    DeviceBuffer<std::int32_t> p(positions, 1), o(offsets.size()), m(members.size()),
        chain(positions.size());
    TokenGrouping on_device = on_host;
    on_device.groups = {p.data(), o.data(), m.data()};
    group_tokens(on_device, nullptr);
    EXPECT_EQ(o.download(), offsets);
    EXPECT_EQ(m.download(), members);
    expect_weights_equal_reference(on_host, on_device);

    PositionChain chained{.batch = kBatch,
                          .tokens = tokens,
                          .middle_tokens = tokens,
                          .first = positions.data(),
                          .second = members.data(),
                          .to = offsets.data()};
    std::vector<std::int32_t> expected(positions.size());
    chained.to = expected.data();
    reference::chain_positions(chained);
    chained.first = p.data();
    chained.second = m.data();
    chained.to = chain.data();
    chain_positions(chained, nullptr);
    EXPECT_EQ(chain.download(), expected);
    EXPECT_TRUE(o.guards_intact() && m.guards_intact() && chain.guards_intact());
  }
}

#endif

}  // namespace
}  // namespace ablate::kernels
