#include "methods/kernels/patch_embed.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/kernels/device_buffer.h"
#include "tests/kernels/values.h"

namespace ablate::kernels {
namespace {

TEST(PatchEmbed, PatchesAreInTheOrderOfConvolutionWeights) {
  // One image, two channels of 2 x 4 pixels, patches of 2: rows (c, py, px).
  std::vector<float> image(16);
  for (std::size_t i = 0; i < 16; ++i) image[i] = static_cast<float>(i);
  std::vector<bfloat16> patches(16);
  reference::patchify<float>({.batch = 1,
                              .channels = 2,
                              .height = 2,
                              .width = 4,
                              .patch = 2,
                              .images = image.data(),
                              .patches = patches.data()});
  EXPECT_EQ(test::as_floats(patches),
            (std::vector<float>{0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15}));
}

TEST(PatchEmbed, TokensBeginWithThePrefix) {
  const std::vector<bfloat16> patches{from_float<bfloat16>(1), from_float<bfloat16>(2)};
  const std::vector<float> cls{10}, distillation{20}, position{0.5F, 0.25F, 0.125F};
  std::vector<float> tokens(6);
  reference::assemble_tokens<float>({.shape = {.batch = 2, .prefix = 2, .patches = 1, .width = 1},
                                     .patches = patches.data(),
                                     .prefix_tokens = {cls.data(), distillation.data()},
                                     .pos_embed = position.data(),
                                     .tokens = tokens.data()});
  EXPECT_EQ(tokens, (std::vector<float>{10.5F, 20.25F, 1.125F, 10.5F, 20.25F, 2.125F}));
}

TEST(PatchEmbed, BackwardAddsUpOverSamplesAndPatches) {
  // Two samples of a class token and two patches.
  const std::vector<float> d_tokens{1, 2, 3, 10, 20, 30};
  std::vector<bfloat16> d_patches(4);
  std::vector<float> d_class{100}, d_position{1, 1, 1}, d_bias{1000};
  reference::assemble_tokens_backward<float>(
      {.shape = {.batch = 2, .prefix = 1, .patches = 2, .width = 1},
       .d_tokens = d_tokens.data(),
       .d_patches = d_patches.data(),
       .d_prefix_tokens = {d_class.data(), nullptr},
       .d_pos_embed = d_position.data(),
       .d_bias = d_bias.data()});
  EXPECT_EQ(test::as_floats(d_patches), (std::vector<float>{2, 3, 20, 30}));
  EXPECT_EQ(d_class[0], 111);
  EXPECT_EQ(d_position, (std::vector<float>{12, 23, 34}));
  EXPECT_EQ(d_bias[0], 1055);
}

#if ABLATE_HAS_CUDA

using test::all_close;
using test::DeviceBuffer;
using test::normal_values;
using PatchEmbedGpu = test::GpuTest;

template <typename T>
void expect_patches_equal_reference(const Patchify<T>& sizes) {
  SCOPED_TRACE(::testing::Message()
               << sizes.batch << " x " << sizes.channels << " x " << sizes.height << " x "
               << sizes.width << ", patch " << sizes.patch);
  const auto count =
      static_cast<std::size_t>(sizes.batch * sizes.channels * sizes.height * sizes.width);
  const auto images = normal_values<T>(count, 1);
  std::vector<bfloat16> expected(count);
  Patchify<T> arguments = sizes;
  arguments.images = images.data();
  arguments.patches = expected.data();
  reference::patchify(arguments);
  const std::size_t shift = sizes.patch % 4 == 0 ? 8 : 1;
  const DeviceBuffer<T> input(images, shift);
  DeviceBuffer<bfloat16> output(count, shift);
  arguments.images = input.data();
  arguments.patches = output.data();
  patchify(arguments, nullptr);
  EXPECT_TRUE(test::same_bits(output.download(), expected));
  EXPECT_TRUE(output.guards_intact());
}

TEST_F(PatchEmbedGpu, PatchesEqualTheReference) {
  const auto check = [](std::int64_t batch, std::int64_t channels, std::int64_t height,
                        std::int64_t width, std::int64_t patch) {
    expect_patches_equal_reference<float>({batch, channels, height, width, patch});
    expect_patches_equal_reference<bfloat16>({batch, channels, height, width, patch});
  };
  check(2, 3, 224, 224, 16);
  check(3, 3, 32, 32, 4);
  check(1, 3, 224, 224, 14);
  check(5, 1, 6, 9, 3);
  check(2, 4, 16, 8, 8);
  check(2, 3, 24, 36, 12);
  check(2, 3, 32, 64, 2);
  check(7, 3, 5, 5, 5);
  check(1, 3, 4, 4, 1);
}

TEST_F(PatchEmbedGpu, ImagesThatAreNoMultipleOfThePatchAreRefused) {
  EXPECT_THROW(
      patchify(Patchify<float>{.batch = 1, .height = 30, .width = 32, .patch = 4}, nullptr),
      BugError);
}

const std::vector<TokenShape> kTokenShapes{
    {.batch = 2, .prefix = 1, .patches = 4, .width = 8},
    {.batch = 1, .prefix = 0, .patches = 1, .width = 1},
    {.batch = 5, .prefix = 2, .patches = 9, .width = 52},
    {.batch = 130, .prefix = 1, .patches = 64, .width = 192},
    {.batch = 33, .prefix = 2, .patches = 196, .width = 384},
    {.batch = 3, .prefix = 1, .patches = 7, .width = 37},  // tokens * width is a multiple of 8
    {.batch = 4, .prefix = 0, .patches = 49, .width = 768},
    {.batch = 17, .prefix = 1, .patches = 1, .width = 4104},
};

std::size_t elements_of(const TokenShape& shape, std::int64_t tokens) {
  return static_cast<std::size_t>(shape.batch * tokens * shape.width);
}

template <typename R>
void expect_tokens_equal_reference(const TokenShape& shape, bool with_positions) {
  const auto width = static_cast<std::size_t>(shape.width);
  const auto patches = normal_values<bfloat16>(elements_of(shape, shape.patches), 1);
  const auto cls = normal_values<float>(width, 2), distillation = normal_values<float>(width, 3);
  const auto positions = normal_values<float>(static_cast<std::size_t>(shape.tokens()) * width, 4);
  std::vector<R> expected(elements_of(shape, shape.tokens()));
  reference::assemble_tokens<R>({.shape = shape,
                                 .patches = patches.data(),
                                 .prefix_tokens = {cls.data(), distillation.data()},
                                 .pos_embed = with_positions ? positions.data() : nullptr,
                                 .tokens = expected.data()});
  const std::size_t shift = shape.width % 8 == 0 ? 8 : 1;
  const DeviceBuffer<bfloat16> device_patches(patches, shift);
  const DeviceBuffer<float> device_cls(cls), device_distillation(distillation),
      device_positions(positions);
  DeviceBuffer<R> tokens(expected.size(), shift);
  assemble_tokens<R>({.shape = shape,
                      .patches = device_patches.data(),
                      .prefix_tokens = {device_cls.data(), device_distillation.data()},
                      .pos_embed = with_positions ? device_positions.data() : nullptr,
                      .tokens = tokens.data()},
                     nullptr);
  EXPECT_TRUE(test::same_bits(tokens.download(), expected));
  EXPECT_TRUE(tokens.guards_intact());
}

TEST_F(PatchEmbedGpu, TokensEqualTheReference) {
  for (const TokenShape& shape : kTokenShapes) {
    SCOPED_TRACE(::testing::Message() << shape.batch << ", prefix " << shape.prefix << ", patches "
                                      << shape.patches << ", width " << shape.width);
    expect_tokens_equal_reference<float>(shape, true);
    expect_tokens_equal_reference<bfloat16>(shape, true);
    expect_tokens_equal_reference<float>(shape, false);
  }
}

/// Gradients in one list: d_class, d_distillation, d_pos_embed, d_bias.
std::vector<std::vector<float>> token_gradients(const TokenShape& shape) {
  const auto width = static_cast<std::size_t>(shape.width);
  return {normal_values<float>(width, 2), normal_values<float>(width, 3),
          normal_values<float>(static_cast<std::size_t>(shape.tokens()) * width, 4),
          normal_values<float>(width, 5)};
}

template <typename R>
void expect_token_gradients_equal_reference(const TokenShape& shape, bool sums) {
  const auto d_tokens = normal_values<R>(elements_of(shape, shape.tokens()), 1);
  std::vector<bfloat16> expected(elements_of(shape, shape.patches));
  auto expected_sums = token_gradients(shape);
  AssembleTokensBackward<R> arguments{
      .shape = shape, .d_tokens = d_tokens.data(), .d_patches = expected.data()};
  const auto set_sums = [&](auto&& data) {
    if (!sums) return;
    arguments.d_prefix_tokens[0] = data(0);
    arguments.d_prefix_tokens[1] = data(1);
    arguments.d_pos_embed = data(2);
    arguments.d_bias = data(3);
  };
  set_sums([&](std::size_t i) { return expected_sums[i].data(); });
  reference::assemble_tokens_backward(arguments);

  const std::size_t shift = shape.width % 8 == 0 ? 8 : 1;
  const DeviceBuffer<R> input(d_tokens, shift);
  DeviceBuffer<std::byte> workspace(assemble_tokens_backward_workspace_bytes(shape));
  std::vector<std::vector<float>> first(4);
  for (int launch = 0; launch < 2; ++launch) {
    const auto before = token_gradients(shape);
    DeviceBuffer<float> cls(before[0], 1), distillation(before[1], 1), positions(before[2], 1),
        bias(before[3], 1);
    DeviceBuffer<bfloat16> d_patches(expected.size(), shift);
    DeviceBuffer<float>* const buffers[] = {&cls, &distillation, &positions, &bias};
    arguments.d_tokens = input.data();
    arguments.d_patches = d_patches.data();
    set_sums([&](std::size_t i) { return buffers[i]->data(); });
    assemble_tokens_backward(arguments, workspace.data(), nullptr);
    EXPECT_TRUE(test::same_bits(d_patches.download(), expected));
    EXPECT_TRUE(d_patches.guards_intact() && workspace.guards_intact());
    for (std::size_t i = 0; i < 4; ++i) {
      SCOPED_TRACE(::testing::Message() << "sum " << i);
      const auto got = buffers[i]->download();
      const double terms = static_cast<double>(shape.batch * (i == 3 ? shape.patches : 1));
      EXPECT_TRUE(all_close(got, expected_sums[i], 2e-6 * std::sqrt(terms), 2e-6));
      EXPECT_TRUE(buffers[i]->guards_intact());
      if (launch == 0) first[i] = got;
      EXPECT_TRUE(test::same_bits(got, first[i]));
    }
  }
}

TEST_F(PatchEmbedGpu, GradientsEqualTheReference) {
  for (const TokenShape& shape : kTokenShapes) {
    SCOPED_TRACE(::testing::Message() << shape.batch << ", prefix " << shape.prefix << ", patches "
                                      << shape.patches << ", width " << shape.width);
    expect_token_gradients_equal_reference<float>(shape, true);
    expect_token_gradients_equal_reference<bfloat16>(shape, true);
    expect_token_gradients_equal_reference<float>(shape, false);
  }
}

#endif

}  // namespace
}  // namespace ablate::kernels
