#include "methods/kernels/token_merge.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

/// Random groups, sizes and values: `T` is the type of the tokens.
template <typename T>
struct MergeCase {
  std::int64_t batch, tokens, new_tokens, width;
  std::vector<std::int32_t> positions, offsets, members;
  std::vector<float> sizes;
  std::vector<T> x, y;  // (B, N, width) and (B, N', width)

  MergeCase(std::int64_t b, std::int64_t n, std::int64_t groups, std::int64_t w)
      : batch(b), tokens(n), new_tokens(groups), width(w) {
    RandomStream stream(21, Purpose::Test);
    for (std::int64_t i = 0; i < batch * tokens; ++i) {
      const std::int64_t token = i % tokens;  // every group gets one
      positions.push_back(static_cast<std::int32_t>(
          token < groups ? groups - 1 - token : stream.below(static_cast<std::uint32_t>(groups))));
      sizes.push_back(static_cast<float>(1 + stream.below(9)));
    }
    offsets.resize(static_cast<std::size_t>(batch * (groups + 1)));
    members.resize(positions.size());
    reference::group_tokens({.batch = batch,
                             .tokens = tokens,
                             .new_tokens = groups,
                             .groups = {positions.data(), offsets.data(), members.data()}});
    x = test::normal_values<T>(static_cast<std::size_t>(batch * tokens * width), 22);
    y = test::normal_values<T>(static_cast<std::size_t>(batch * groups * width), 23);
  }

  TokenMerge<T> merge(const T* from, T* to, float* merged_sizes, float* log_sizes,
                      bool sized = true) {
    return {.batch = batch,
            .tokens = tokens,
            .new_tokens = new_tokens,
            .width = width,
            .x = from,
            .sizes = sized ? sizes.data() : nullptr,
            .offsets = offsets.data(),
            .members = members.data(),
            .merged = to,
            .merged_sizes = merged_sizes,
            .log_sizes = log_sizes};
  }
  TokenMergeBackward<T> merge_backward(const float* merged_sizes, T* to, bool sized = true) {
    return {.batch = batch,
            .tokens = tokens,
            .new_tokens = new_tokens,
            .width = width,
            .grad_merged = y.data(),
            .sizes = sized ? sizes.data() : nullptr,
            .merged_sizes = merged_sizes,
            .positions = positions.data(),
            .grad_x = to};
  }
  TokenUnmerge<T> unmerge(T* to) {
    return {.batch = batch,
            .tokens = tokens,
            .new_tokens = new_tokens,
            .width = width,
            .x = y.data(),
            .positions = positions.data(),
            .out = to};
  }
  TokenUnmergeBackward<T> unmerge_backward(T* to) {
    return {.batch = batch,
            .tokens = tokens,
            .new_tokens = new_tokens,
            .width = width,
            .grad_out = x.data(),
            .offsets = offsets.data(),
            .members = members.data(),
            .grad_x = to};
  }
};

template <typename T>
double inner_product(const std::vector<T>& a, const std::vector<T>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double{to_float(a[i])} * to_float(b[i]);
  return sum;
}

TEST(TokenMerge, WeighsByTheSizes) {
  MergeCase<float> c(1, 3, 2, 1);
  c.positions = {0, 1, 1};
  c.offsets = {0, 1, 3};
  c.members = {0, 1, 2};
  c.sizes = {4, 1, 3};
  c.x = {7, 10, 20};
  std::vector<float> merged(2), sizes(2), logs(2);
  reference::merge_tokens(c.merge(c.x.data(), merged.data(), sizes.data(), logs.data()));
  EXPECT_EQ(merged, (std::vector<float>{7, 17.5F}));
  EXPECT_EQ(sizes, (std::vector<float>{4, 4}));
  EXPECT_FLOAT_EQ(logs[1], std::log(4.0F));
}

TEST(TokenMerge, KeepsTheWeightedSum) {
  MergeCase<float> c(2, 19, 7, 3);
  std::vector<float> merged(c.y.size()), sizes(14);
  reference::merge_tokens(c.merge(c.x.data(), merged.data(), sizes.data(), nullptr));
  for (std::size_t image = 0; image < 2; ++image) {
    for (std::size_t channel = 0; channel < 3; ++channel) {
      double before = 0.0, after = 0.0;
      for (std::size_t n = image * 19; n < image * 19 + 19; ++n) {
        before += c.sizes[n] * c.x[n * 3 + channel];
      }
      for (std::size_t p = image * 7; p < image * 7 + 7; ++p) {
        after += sizes[p] * merged[p * 3 + channel];
      }
      EXPECT_NEAR(before, after, 1e-4);
    }
  }
}

/// The backward maps are the adjoints of the forward ones: (M x, y) = (x, M^T y).
TEST(TokenMerge, BackwardIsTheAdjoint) {
  MergeCase<float> c(2, 19, 7, 5);
  std::vector<float> merged(c.y.size()), sizes(14), grad(c.x.size());
  reference::merge_tokens(c.merge(c.x.data(), merged.data(), sizes.data(), nullptr));
  reference::merge_tokens_backward(c.merge_backward(sizes.data(), grad.data()));
  EXPECT_NEAR(inner_product(merged, c.y), inner_product(c.x, grad), 1e-4);

  std::vector<float> out(c.x.size()), grad_x(c.y.size());
  reference::unmerge_tokens(c.unmerge(out.data()));
  reference::unmerge_tokens_backward(c.unmerge_backward(grad_x.data()));
  EXPECT_NEAR(inner_product(out, c.x), inner_product(c.y, grad_x), 1e-4);
}

#if ABLATE_HAS_CUDA

using test::DeviceBuffer;
using TokenMergeGpu = test::GpuTest;

/// The maps of a case on the device.
template <typename T>
struct MergeOnDevice {
  DeviceBuffer<std::int32_t> positions, offsets, members;
  DeviceBuffer<float> sizes;
  DeviceBuffer<T> x, y;

  MergeOnDevice(const MergeCase<T>& c, std::size_t shift)
      : positions(c.positions, 1),
        offsets(c.offsets, 2),
        members(c.members, 3),
        sizes(c.sizes, 1),
        x(c.x, shift),
        y(c.y, shift) {}
  /// The arguments of a host call with the device's inputs.
  template <typename Arguments>
  Arguments take_maps(Arguments a) {
    if constexpr (requires { a.offsets; }) {
      a.offsets = offsets.data();
      a.members = members.data();
    } else {
      a.positions = positions.data();
    }
    if constexpr (requires { a.sizes; }) {
      if (a.sizes != nullptr) a.sizes = sizes.data();
    }
    return a;
  }
};

/// Runs `launch` twice into a fresh buffer: at most a neighbouring value of `expected`, the same
/// bits, guards intact.
template <typename T, typename Launch>
void expect_result(const std::vector<T>& expected, std::size_t shift, const char* name,
                   const Launch& launch) {
  std::vector<T> first;
  for (int run = 0; run < 2; ++run) {
    DeviceBuffer<T> to(expected.size(), shift);
    launch(to.data());
    const auto actual = to.download();
    EXPECT_TRUE(test::all_close(actual, expected, 1e-5, 2.0 * test::rounding_of<T>() + 1e-6))
        << name;
    EXPECT_TRUE(to.guards_intact()) << name;
    if (run == 0) first = actual;
    EXPECT_TRUE(test::same_bits(actual, first)) << name;
  }
}

template <typename T>
void expect_merging_equals_reference(MergeCase<T>& c, std::size_t shift, bool sized) {
  MergeOnDevice<T> device(c, shift);
  std::vector<float> sizes(static_cast<std::size_t>(c.batch * c.new_tokens)), logs = sizes;
  std::vector<T> of_tokens(c.x.size()), of_groups(c.y.size());

  reference::merge_tokens(c.merge(c.x.data(), of_groups.data(), sizes.data(), logs.data(), sized));
  DeviceBuffer<float> merged_sizes(sizes.size(), 1), log_sizes(sizes.size(), 3);
  expect_result(of_groups, shift, "merge", [&](T* to) {
    merge_tokens(device.take_maps(
                     c.merge(device.x.data(), to, merged_sizes.data(), log_sizes.data(), sized)),
                 nullptr);
  });
  EXPECT_EQ(merged_sizes.download(), sizes);
  EXPECT_TRUE(test::all_close(log_sizes.download(), logs, 1e-6, 1e-6));
  EXPECT_TRUE(merged_sizes.guards_intact() && log_sizes.guards_intact());

  reference::merge_tokens_backward(c.merge_backward(sizes.data(), of_tokens.data(), sized));
  expect_result(of_tokens, shift, "merge backward", [&](T* to) {
    auto a = device.take_maps(c.merge_backward(merged_sizes.data(), to, sized));
    a.grad_merged = device.y.data();
    merge_tokens_backward(a, nullptr);
  });

  reference::unmerge_tokens(c.unmerge(of_tokens.data()));
  expect_result(of_tokens, shift, "unmerge", [&](T* to) {
    auto a = device.take_maps(c.unmerge(to));
    a.x = device.y.data();
    unmerge_tokens(a, nullptr);
  });

  reference::unmerge_tokens_backward(c.unmerge_backward(of_groups.data()));
  expect_result(of_groups, shift, "unmerge backward", [&](T* to) {
    auto a = device.take_maps(c.unmerge_backward(to));
    a.grad_out = device.x.data();
    unmerge_tokens_backward(a, nullptr);
  });
}

struct MergeSize {
  std::int64_t batch, tokens, new_tokens, width;
};

TEST_F(TokenMergeGpu, EqualsTheReference) {
  const std::vector<MergeSize> sizes{{1, 1, 1, 8},       {2, 5, 3, 7},      {3, 65, 61, 192},
                                     {2, 197, 184, 384}, {2, 50, 26, 768},  {1, 198, 99, 72},
                                     {2, 33, 1, 1000},   {1, 9, 4, 4096},   {1, 20, 9, 1},
                                     {2, 17, 17, 264},   {1, 1025, 975, 64}};
  for (const MergeSize& size : sizes) {
    if (test::too_large_here(size.batch * size.tokens * size.width)) continue;
    SCOPED_TRACE(::testing::Message() << size.batch << " x " << size.tokens << " to "
                                      << size.new_tokens << " of width " << size.width);
    for (const bool sized : {true, false}) {
      for (const std::size_t shift : {std::size_t{0}, std::size_t{1}}) {
        SCOPED_TRACE(::testing::Message() << "shift " << shift << ", sized " << sized);
        MergeCase<float> of_float(size.batch, size.tokens, size.new_tokens, size.width);
        expect_merging_equals_reference(of_float, shift, sized);
        MergeCase<bfloat16> of_half(size.batch, size.tokens, size.new_tokens, size.width);
        expect_merging_equals_reference(of_half, shift, sized);
      }
    }
  }
}

TEST_F(TokenMergeGpu, ATokenThatStaysAloneKeepsItsValue) {
  MergeCase<float> c(1, 40, 40, 100);
  MergeOnDevice<float> device(c, 0);
  DeviceBuffer<float> merged(c.x.size());
  merge_tokens(device.take_maps(c.merge(device.x.data(), merged.data(), nullptr, nullptr)),
               nullptr);
  const auto actual = merged.download();
  for (std::size_t n = 0; n < 40; ++n) {
    const auto group = static_cast<std::size_t>(c.positions[n]);
    for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(actual[group * 100 + i], c.x[n * 100 + i]);
  }
}

#endif

}  // namespace
}  // namespace ablate::kernels
