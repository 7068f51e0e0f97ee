#include <cmath>
#include <sstream>
#include <vector>

#include <gtest/gtest.h>

#include "methods/kernels/batch_norm_pool.h"
#include "methods/kernels/pack_images.h"
#include "tests/kernels/batch_norm_cases.h"
#include "tests/kernels/device_buffer.h"

namespace ablate::kernels {
namespace {

using test::elements;
using test::HostTables;
using test::NormInputs;

/// Results of backward for one branch, on the host.
struct BranchResults {
  explicit BranchResults(const BatchNormShape& shape)
      : slope(static_cast<std::size_t>(shape.values())),
        offset(slope.size()),
        d_gamma(static_cast<std::size_t>(shape.channels), 0.5F),
        d_beta(d_gamma),
        dx(elements(shape)) {}
  BatchNormBranch branch(const bfloat16* x, const BatchNormTables& tables) {
    return {x, tables, slope.data(), offset.data(), d_gamma.data(), d_beta.data()};
  }

  std::vector<float> slope, offset, d_gamma, d_beta;
  std::vector<bfloat16> dx;
};

// What the gradient of a normalisation cannot contain: a common shift, or a multiple of xhat.
TEST(BatchNormBackward, IsOrthogonalToTheDirectionsThatNormalisationRemoves) {
  const BatchNormShape shape{.groups = 3, .rows = 50, .channels = 8};
  NormInputs inputs(shape);
  const auto dy = test::normal_values<bfloat16>(elements(shape), 3);
  BranchResults found(shape);
  const auto branch = found.branch(inputs.x.data(), inputs.known.tables());
  reference::batch_norm_reduce({.shape = shape, .dy = dy.data(), .branch = branch});
  reference::batch_norm_input_gradient(
      {.shape = shape, .dy = dy.data(), .branch = branch, .dx = found.dx.data()});
  const auto tables = inputs.known.tables();
  for (std::size_t table = 0; table < 24; ++table) {
    if (table % 8 == 0 || table % 8 == 5) continue;  // constant channels
    double sum = 0.0, along = 0.0, size = 0.0;
    for (std::size_t row = 0; row < 50; ++row) {
      const std::size_t at = (table / 8 * 50 + row) * 8 + table % 8;
      const double dx = to_float(found.dx[at]);
      const double xhat = (to_float(inputs.x[at]) - tables.mean[table]) * tables.rstd[table];
      sum += dx;
      along += dx * xhat;
      size += std::abs(dx);
    }
    EXPECT_LT(std::abs(sum), 0x1p-8 * size);
    EXPECT_LT(std::abs(along), 0x1p-7 * size);
  }
}

TEST(BatchNormPool, ChoosesTheFirstLargestOfEachWindow) {
  const PoolShape shape{.batch = 1, .height = 3, .width = 4, .channels = 8};
  // One channel looked at; scale -1 turns the order around before the ReLU.
  std::vector<bfloat16> x(96);
  const float map[12] = {5, -1, -2, -3, -4, 0, -4, 9, 2, -6, 3, -6};
  for (std::size_t i = 0; i < 12; ++i) x[8 * i] = from_float<bfloat16>(map[i]);
  HostTables host(shape.rows());
  for (int c = 0; c < 8; ++c) host.tables().scale[c] = -1.0F;
  std::vector<bfloat16> y(32), selected(32);
  std::vector<std::uint8_t> taps(32);
  reference::batch_norm_pool({.shape = shape,
                              .x = x.data(),
                              .tables = host.tables(),
                              .y = y.data(),
                              .selected = selected.data(),
                              .taps = taps.data()});
  // Windows centred at (0, 0), (0, 2), (2, 0), (2, 2).
  const std::vector<float> expected{4, 4, 6, 6};
  const std::vector<int> expected_taps{7, 7, 5, 3};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(to_float(y[8 * i]), expected[i]) << i;
    EXPECT_EQ(to_float(selected[8 * i]), -expected[i]) << i;
    EXPECT_EQ(taps[8 * i], expected_taps[i]) << i;
  }
  // With slope and offset 0 the gradient goes to the chosen elements alone, twice where two
  // windows chose the same.
  const std::vector<float> zeros(8);
  std::vector<bfloat16> g(32), dx(96);
  for (std::size_t i = 0; i < 4; ++i) g[8 * i] = from_float<bfloat16>(static_cast<float>(i + 1));
  reference::batch_norm_pool_input_gradient({.shape = shape,
                                             .g = g.data(),
                                             .taps = taps.data(),
                                             .branch = {.x = x.data(),
                                                        .tables = host.tables(),
                                                        .slope = const_cast<float*>(zeros.data()),
                                                        .offset = const_cast<float*>(zeros.data())},
                                             .dx = dx.data()});
  const std::vector<float> expected_dx{0, 0, 0, 0, -1, 0, -2, 0, 0, -7, 0, 0};
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(to_float(dx[8 * i]), expected_dx[i]) << i;
}

/// The definition, element by element.
TEST(PackImages, PutsEachPixelIntoItsPlace) {
  const std::vector<float> images = test::normal_values<float>(2 * 3 * 5 * 6, 1);
  for (const std::int64_t block : {1, 2}) {
    const std::int64_t channels = PackImages<float>::channels(block), height = 5, width = 4;
    std::vector<bfloat16> packed(static_cast<std::size_t>(2 * height * width * channels));
    reference::pack_images<float>({.batch = 2,
                                   .height = 5,
                                   .width = 6,
                                   .block = block,
                                   .pad = 3,
                                   .out_height = height,
                                   .out_width = width,
                                   .images = images.data(),
                                   .packed = packed.data()});
    for (std::int64_t i = 0; i < std::ssize(packed); ++i) {
      const std::int64_t k = i % channels, column = i / channels % width,
                         row = i / channels / width % height, image = i / channels / width / height;
      const std::int64_t y = block * row + k / 3 / block - 3,
                         x = block * column + k / 3 % block - 3;
      const bool inside = k < 3 * block * block && y >= 0 && y < 5 && x >= 0 && x < 6;
      const auto from = static_cast<std::size_t>(((image * 3 + k % 3) * 5 + y) * 6 + x);
      const float expected = inside ? to_float(from_float<bfloat16>(images[from])) : 0.0F;
      ASSERT_EQ(to_float(packed[static_cast<std::size_t>(i)]), expected) << block << " " << i;
    }
  }
}

#if ABLATE_HAS_CUDA

using test::all_close;
using test::DeviceBuffer;
using test::same_bits;
using BatchNormBackwardGpu = test::GpuTest;

/// The same in device memory.
struct DeviceBranch {
  DeviceBranch(const BatchNormShape& size, const std::vector<bfloat16>& inputs,
               const std::vector<float>& known)
      : shape(size),
        x(inputs, 8),
        tables(known),
        slope(static_cast<std::size_t>(size.values())),
        offset(slope.size()),
        d_gamma(std::vector<float>(static_cast<std::size_t>(size.channels), 0.5F)),
        d_beta(std::vector<float>(static_cast<std::size_t>(size.channels), 0.5F)),
        dx(inputs.size(), 8) {}
  BatchNormBranch branch() {
    return {x.data(),       BatchNormTables::in(tables.data(), shape),
            slope.data(),   offset.data(),
            d_gamma.data(), d_beta.data()};
  }
  bool intact() const {
    return slope.guards_intact() && offset.guards_intact() && d_gamma.guards_intact() &&
           d_beta.guards_intact() && dx.guards_intact();
  }

  BatchNormShape shape;
  DeviceBuffer<bfloat16> x;
  DeviceBuffer<float> tables, slope, offset, d_gamma, d_beta;
  DeviceBuffer<bfloat16> dx;
};

/// Sums over rows in float, of terms about 1 (distances up to 5 x 3).
void expect_branch(DeviceBranch& found, const BranchResults& expected) {
  const double sum_error =
      1e-5 * std::sqrt(static_cast<double>(found.shape.rows * found.shape.groups)) + 1e-5;
  EXPECT_TRUE(all_close(found.d_beta.download(), expected.d_beta, sum_error, 1e-5));
  EXPECT_TRUE(all_close(found.d_gamma.download(), expected.d_gamma, sum_error, 1e-5));
  // Constant channels have large scales.
  EXPECT_TRUE(all_close(found.dx.download(), expected.dx, 1e-2, 2 * test::rounding_of<bfloat16>()));
  EXPECT_TRUE(found.intact());
}

struct BackwardKind {
  const char* name;
  bool mask, more, shortcut;
};

void expect_backward_equals_reference(const BatchNormShape& shape, const BackwardKind& kind) {
  NormInputs inputs(shape), other(shape, 5);
  const auto dy = test::normal_values<bfloat16>(elements(shape), 8);
  const auto more = test::normal_values<bfloat16>(elements(shape), 9);
  std::vector<std::uint8_t> mask(elements(shape) / 8);
  for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = static_cast<std::uint8_t>(i * 37 + i / 9);
  const bool joins = kind.mask || kind.more;
  BranchResults expected(shape), expected_other(shape);
  std::vector<bfloat16> expected_g(elements(shape));
  BatchNormReduce reduce{
      .shape = shape,
      .dy = dy.data(),
      .dy_more = kind.more ? more.data() : nullptr,
      .mask = kind.mask ? mask.data() : nullptr,
      .g = joins ? expected_g.data() : nullptr,
      .branch = expected.branch(inputs.x.data(), inputs.known.tables()),
      .shortcut = kind.shortcut ? expected_other.branch(other.x.data(), other.known.tables())
                                : BatchNormBranch{}};
  reference::batch_norm_reduce(reduce);
  reference::batch_norm_input_gradient({.shape = shape,
                                        .g = reduce.g,
                                        .dy = reduce.dy,
                                        .branch = reduce.branch,
                                        .dx = expected.dx.data(),
                                        .shortcut = reduce.shortcut,
                                        .d_shortcut = expected_other.dx.data()});
  const DeviceBuffer<bfloat16> d_dy(dy, 8), d_more(more, 8);
  const DeviceBuffer<std::uint8_t> d_mask(mask);
  DeviceBuffer<std::byte> workspace(batch_norm_workspace_bytes(shape));
  std::vector<bfloat16> first;
  for (int launch = 0; launch < 2; ++launch) {
    DeviceBranch found(shape, inputs.x, inputs.known.memory);
    DeviceBranch found_other(shape, other.x, other.known.memory);
    DeviceBuffer<bfloat16> g(elements(shape), 8);
    reduce.dy = d_dy.data();
    if (kind.more) reduce.dy_more = d_more.data();
    if (kind.mask) reduce.mask = d_mask.data();
    if (joins) reduce.g = g.data();
    reduce.branch = found.branch();
    if (kind.shortcut) reduce.shortcut = found_other.branch();
    batch_norm_reduce(reduce, workspace.data(), nullptr);
    EXPECT_TRUE(!joins || same_bits(g.download(), expected_g));
    batch_norm_input_gradient({.shape = shape,
                               .g = reduce.g,
                               .dy = reduce.dy,
                               .branch = reduce.branch,
                               .dx = found.dx.data(),
                               .shortcut = reduce.shortcut,
                               .d_shortcut = found_other.dx.data()},
                              nullptr);
    expect_branch(found, expected);
    if (kind.shortcut) expect_branch(found_other, expected_other);
    EXPECT_TRUE(g.guards_intact() && workspace.guards_intact());
    const auto dx = found.dx.download();
    if (launch == 0) first = dx;
    EXPECT_TRUE(same_bits(dx, first));
  }
}

TEST_F(BatchNormBackwardGpu, EqualsTheReference) {
  const std::vector<BatchNormShape> shapes{{1, 2, 8},       {1, 49, 2048},   {4, 49, 8},
                                           {3, 7 * 49, 72}, {2, 1000, 24},   {1, 12544, 64},
                                           {8, 196, 1000},  {1, 100003, 16}, {5, 3, 2056}};
  const std::vector<BackwardKind> kinds{{"plain", false, false, false},
                                        {"two readers", false, true, false},
                                        {"residual", true, false, false},
                                        {"residual, two readers", true, true, false},
                                        {"normalised shortcut", true, false, true},
                                        {"normalised shortcut, two readers", true, true, true}};
  for (const BatchNormShape& shape : shapes) {
    if (test::too_large_here(static_cast<std::int64_t>(elements(shape)))) continue;
    for (const BackwardKind& kind : kinds) {
      std::ostringstream text;
      test::print_shape(text, shape) << ", " << kind.name;
      SCOPED_TRACE(text.str());
      expect_backward_equals_reference(shape, kind);
    }
  }
}

using BatchNormPoolGpu = test::GpuTest;

TEST_F(BatchNormPoolGpu, EqualsTheReference) {
  const std::vector<PoolShape> shapes{{1, 1, 1, 8},       {2, 7, 5, 16},      {4, 112, 112, 64, 1},
                                      {6, 16, 17, 24, 3}, {3, 2, 9, 2048, 3}, {2, 33, 31, 520, 1}};
  for (const PoolShape& shape : shapes) {
    if (test::too_large_here(static_cast<std::int64_t>(elements(shape.rows())))) continue;
    SCOPED_TRACE(::testing::Message() << shape.batch << " x " << shape.height << " x "
                                      << shape.width << " x " << shape.channels);
    NormInputs inputs(shape.rows());
    const BatchNormShape pooled = shape.pooled_rows();
    std::vector<bfloat16> y(elements(pooled)), selected(elements(pooled));
    std::vector<std::uint8_t> taps(elements(pooled));
    reference::batch_norm_pool(
        {shape, inputs.x.data(), inputs.known.tables(), y.data(), selected.data(), taps.data()});
    const auto g = test::normal_values<bfloat16>(elements(pooled), 3);
    BranchResults expected(shape.rows());
    expected.slope = test::normal_values<float>(expected.slope.size(), 4);
    expected.offset = test::normal_values<float>(expected.offset.size(), 5);
    reference::batch_norm_pool_input_gradient(
        {shape, g.data(), taps.data(), expected.branch(inputs.x.data(), inputs.known.tables()),
         expected.dx.data()});
    DeviceBranch found(shape.rows(), inputs.x, inputs.known.memory);
    found.slope.upload(expected.slope);
    found.offset.upload(expected.offset);
    DeviceBuffer<bfloat16> d_y(y.size(), 8), d_selected(y.size(), 8);
    DeviceBuffer<std::uint8_t> d_taps(y.size());
    const DeviceBuffer<bfloat16> d_g(g, 8);
    batch_norm_pool({shape, found.x.data(), found.branch().tables, d_y.data(), d_selected.data(),
                     d_taps.data()},
                    nullptr);
    EXPECT_TRUE(same_bits(d_y.download(), y));
    EXPECT_TRUE(same_bits(d_selected.download(), selected));
    EXPECT_EQ(d_taps.download(), taps);
    batch_norm_pool_input_gradient(
        {shape, d_g.data(), d_taps.data(), found.branch(), found.dx.data()}, nullptr);
    EXPECT_TRUE(
        all_close(found.dx.download(), expected.dx, 1e-4, 2 * test::rounding_of<bfloat16>()));
    EXPECT_TRUE(d_y.guards_intact() && d_selected.guards_intact() && d_taps.guards_intact() &&
                found.intact());
  }
}

using PackImagesGpu = test::GpuTest;

template <typename T>
void expect_packing_equals_reference(const PackImages<T>& shape) {
  const auto images = test::normal_values<T>(
      static_cast<std::size_t>(shape.batch * 3 * shape.height * shape.width), 1);
  const auto count = static_cast<std::size_t>(shape.batch * shape.out_height * shape.out_width *
                                              PackImages<T>::channels(shape.block));
  std::vector<bfloat16> expected(count);
  PackImages<T> arguments = shape;
  arguments.images = images.data();
  arguments.packed = expected.data();
  reference::pack_images(arguments);
  const DeviceBuffer<T> d_images(images, 1);
  DeviceBuffer<bfloat16> packed(count);
  arguments.images = d_images.data();
  arguments.packed = packed.data();
  pack_images(arguments, nullptr);
  EXPECT_TRUE(same_bits(packed.download(), expected));
  EXPECT_TRUE(packed.guards_intact());
}

TEST_F(PackImagesGpu, EqualsTheReference) {
  expect_packing_equals_reference<float>({2, 224, 224, 2, 3, 115, 115});
  expect_packing_equals_reference<bfloat16>({3, 33, 35, 2, 3, 20, 21});
  expect_packing_equals_reference<float>({5, 32, 32, 1, 1, 34, 34});
  expect_packing_equals_reference<bfloat16>({1, 7, 5, 1, 0, 3, 9});
}

#endif

}  // namespace
}  // namespace ablate::kernels
