#include "methods/kernels/column_sum.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

TEST(ColumnSum, AddsTheRowsToWhatIsThere) {
  const std::vector<float> values{1, 2, 3, 10, 20, 30};
  std::vector<float> sums{100, 200, 300};
  reference::column_sum<float>(
      {.values = values.data(), .rows = 2, .width = 3, .sums = sums.data()});
  EXPECT_EQ(sums, (std::vector<float>{111, 222, 333}));
}

TEST(ColumnSum, ReadsBfloat16) {
  const std::vector<bfloat16> values{from_float<bfloat16>(1.5F), from_float<bfloat16>(-2.0F)};
  std::vector<float> sums{0.0F};
  reference::column_sum<bfloat16>(
      {.values = values.data(), .rows = 2, .width = 1, .sums = sums.data()});
  EXPECT_EQ(sums[0], -0.5F);
}

#if ABLATE_HAS_CUDA

using test::all_close;
using test::DeviceBuffer;
using ColumnSumGpu = test::GpuTest;

struct ColumnSumSize {
  std::int64_t rows, width;
};

const std::vector<ColumnSumSize> kColumnSumSizes{
    {1, 1},    {1, 8},     {3, 10},    {7, 100},  {128, 100},  {257, 37},   {1000, 8},
    {31, 192}, {513, 384}, {8320, 72}, {6, 1000}, {255, 3072}, {4097, 264}, {2000, 768},
    {5, 4096}, {3, 9992},  {9, 4099},  {40, 523}, {33, 512},   {1, 151296},
};

template <typename T>
void expect_column_sums_equal_reference(const ColumnSumSize& size) {
  const auto count = static_cast<std::size_t>(size.rows * size.width);
  const auto values = test::normal_values<T>(count, 1, 1.0, 0.1);
  const auto before = test::normal_values<float>(static_cast<std::size_t>(size.width), 2);
  auto expected = before;
  reference::column_sum<T>(
      {.values = values.data(), .rows = size.rows, .width = size.width, .sums = expected.data()});

  // Any width may start anywhere that its elements may; widths of full speed need 16 bytes.
  const DeviceBuffer<T> input(values, size.width % 8 == 0 ? 8 : 1);
  DeviceBuffer<std::byte> workspace(column_sum_workspace_bytes(size.rows, size.width));
  std::vector<float> first;
  for (int launch = 0; launch < 2; ++launch) {
    DeviceBuffer<float> sums(before, 3);
    column_sum<T>(
        {.values = input.data(), .rows = size.rows, .width = size.width, .sums = sums.data()},
        workspace.data(), nullptr);
    const auto actual = sums.download();
    EXPECT_TRUE(
        all_close(actual, expected, 2e-6 * std::sqrt(static_cast<double>(size.rows)), 2e-6));
    EXPECT_TRUE(sums.guards_intact());
    if (launch == 0) first = actual;
    EXPECT_TRUE(test::same_bits(actual, first));
  }
  EXPECT_TRUE(workspace.guards_intact());
}

TEST_F(ColumnSumGpu, EqualsTheReference) {
  for (const ColumnSumSize& size : kColumnSumSizes) {
    if (test::too_large_here(size.rows * size.width)) continue;
    SCOPED_TRACE(::testing::Message() << size.rows << " x " << size.width);
    expect_column_sums_equal_reference<float>(size);
    expect_column_sums_equal_reference<bfloat16>(size);
  }
}

TEST_F(ColumnSumGpu, NoRowsAddNothing) {
  DeviceBuffer<float> sums(std::vector<float>{1, 2, 3});
  column_sum<float>({.values = nullptr, .rows = 0, .width = 3, .sums = sums.data()}, nullptr,
                    nullptr);
  EXPECT_EQ(sums.download(), (std::vector<float>{1, 2, 3}));
}

#endif

}  // namespace
}  // namespace ablate::kernels
