#include "methods/kernels/drop_path.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/hash.h"
#include "runner/core/random.h"
#include "runner/core/text.h"
#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

/// What Block::branch_scale() computes for one sample, written out.
float scale_of_sample(std::uint64_t seed, std::int64_t step, const DropPathJoin& join,
                      std::uint64_t position) {
  const auto words = philox4x32(
      {static_cast<std::uint32_t>(position / 4), static_cast<std::uint32_t>(step),
       static_cast<std::uint32_t>(join.module), static_cast<std::uint32_t>(join.module >> 32)},
      philox_key(seed, Purpose::DropPath));
  const double uniform = static_cast<double>(words[position % 4] >> 8) * 0x1p-24;
  return uniform < join.keep ? static_cast<float>(join.gain / join.keep) : 0.0F;
}

std::vector<DropPathJoin> drop_path_joins() {
  std::vector<DropPathJoin> joins;
  for (int block = 0; block < 12; ++block) {
    const double keep = 1.0 - 0.3 * block / 11;
    joins.push_back({hash64(cat("blocks.", block, ".attn")), keep, 0.5});
    joins.push_back({hash64(cat("blocks.", block, ".mlp")), keep, 1.0});
  }
  return joins;
}

TEST(DropPath, ReferenceIsTheBlocksRule) {
  const auto joins = drop_path_joins();
  const std::int64_t step = 123456789;
  std::vector<float> scales(joins.size() * 37);
  reference::drop_path_scales({.joins = joins.data(),
                               .join_count = static_cast<std::int64_t>(joins.size()),
                               .batch = 37,
                               .first_position = 11,
                               .seed = 42,
                               .step = &step,
                               .scales = scales.data()});
  for (std::size_t j = 0; j < joins.size(); ++j) {
    for (std::size_t b = 0; b < 37; ++b) {
      EXPECT_EQ(scales[j * 37 + b], scale_of_sample(42, step, joins[j], 11 + b));
    }
  }
}

TEST(DropPath, MeanIsTheGain) {
  const std::vector<DropPathJoin> joins{{hash64("blocks.0.mlp"), 0.8, 0.5}};
  const std::int64_t step = 3;
  std::vector<float> scales(100000);
  reference::drop_path_scales({.joins = joins.data(),
                               .join_count = 1,
                               .batch = 100000,
                               .seed = 1,
                               .step = &step,
                               .scales = scales.data()});
  const auto kept = std::ranges::count(scales, 0.625F);
  EXPECT_EQ(kept + std::ranges::count(scales, 0.0F), 100000);
  EXPECT_NEAR(static_cast<double>(kept), 80000.0, 5 * 126.5);  // 5 standard deviations
}

#if ABLATE_HAS_CUDA

using test::DeviceBuffer;
using DropPathGpu = test::GpuTest;

/// The same on host and device.
void expect_equal_scales(const std::vector<DropPathJoin>& joins, std::int64_t batch,
                         std::int64_t first_position, std::int64_t step) {
  std::vector<float> expected(joins.size() * static_cast<std::size_t>(batch));
  DropPath arguments{.joins = joins.data(),
                     .join_count = static_cast<std::int64_t>(joins.size()),
                     .batch = batch,
                     .first_position = first_position,
                     .seed = 0x123456789abcdef0U,
                     .step = &step,
                     .scales = expected.data()};
  reference::drop_path_scales(arguments);
  const DeviceBuffer<DropPathJoin> device_joins(joins);
  const DeviceBuffer<std::int64_t> device_step(std::vector<std::int64_t>{step});
  DeviceBuffer<float> scales(expected.size(), 1);
  arguments.joins = device_joins.data();
  arguments.step = device_step.data();
  arguments.scales = scales.data();
  drop_path_scales(arguments, nullptr);
  EXPECT_TRUE(test::same_bits(scales.download(), expected));
  EXPECT_TRUE(scales.guards_intact());
}

TEST_F(DropPathGpu, EqualsTheReferenceBitForBit) {
  const auto joins = drop_path_joins();
  expect_equal_scales(joins, 1, 0, 0);
  expect_equal_scales(joins, 37, 11, 123456789);
  expect_equal_scales(joins, 512, 512, 1);
  expect_equal_scales(joins, 1000, 3, (std::int64_t{1} << 32) + 5);
}

// A join that keeps samples below the number of sample b, and one that keeps it too, show all 24
// bits of that number: the device's Philox gives the host's words.
TEST_F(DropPathGpu, NumbersAreThoseOfTheHost) {
  constexpr std::int64_t kBatch = 64;
  std::vector<DropPathJoin> joins;
  for (std::uint64_t b = 0; b < kBatch; ++b) {
    const std::uint64_t module = hash64(cat("module ", b));
    RandomStream stream(0x123456789abcdef0U, Purpose::DropPath, module, 77);
    for (std::uint64_t skipped = 0; skipped < b; ++skipped) stream.next();
    const double number = stream.uniform();
    joins.push_back({module, number, 1.0});
    joins.push_back({module, number + 0x1p-24, 1.0});
  }
  expect_equal_scales(joins, kBatch, 0, 77);
}

#endif

}  // namespace
}  // namespace ablate::kernels
