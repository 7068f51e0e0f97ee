#include "methods/models/random_numbers.h"

#include <cmath>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/random.h"
#include "tests/core/expect_error.h"
#include "tests/support/gpu.h"

namespace ablate {
namespace {

ForwardState state_at(std::uint64_t seed, std::int64_t step, std::int64_t first_position) {
  ForwardState state;
  state.seed = seed;
  state.step = step;
  state.first_position = first_position;
  return state;
}

TEST(RandomNumbers, AreThoseOfTheStreamOfModuleAndStep) {
  constexpr std::int64_t kRows = 3, kCount = 7, kFirst = 5, kStep = 41;
  // A seed whose key has both words, and a position behind the first.
  const std::uint64_t seed = 0x123456789ABCDEF1;
  const at::Tensor numbers = uniform_numbers(state_at(seed, kStep, kFirst), "blocks.2.reducer",
                                             kRows, kCount, at::ones({1}));
  ASSERT_EQ(numbers.sizes(), at::IntArrayRef({kRows, kCount}));
  RandomStream stream(seed, Purpose::Method, hash64("blocks.2.reducer"), kStep);
  for (std::int64_t position = 0; position < kFirst + kRows; ++position) {
    for (std::int64_t column = 0; column < 8; ++column) {
      const double expected = (static_cast<double>(stream.next() >> 8) + 0.5) * 0x1p-24;
      if (position < kFirst || column >= kCount) continue;
      EXPECT_EQ(numbers[position - kFirst][column].item<double>(), expected)
          << position << ", " << column;
    }
  }
}

TEST(RandomNumbers, BelongToPositionsWhoeverHasThem) {
  const at::Tensor whole = uniform_numbers(state_at(3, 2, 0), "m", 6, 5, at::ones({1}));
  const at::Tensor part = uniform_numbers(state_at(3, 2, 4), "m", 2, 5, at::ones({1}));
  EXPECT_TRUE(at::equal(whole.narrow(0, 4, 2), part));
  for (const at::Tensor& other : {uniform_numbers(state_at(4, 2, 0), "m", 6, 5, at::ones({1})),
                                  uniform_numbers(state_at(3, 1, 0), "m", 6, 5, at::ones({1})),
                                  uniform_numbers(state_at(3, 2, 0), "n", 6, 5, at::ones({1}))}) {
    EXPECT_FALSE((whole == other).any().item<bool>());
  }
}

TEST(RandomNumbers, AreSpreadEvenly) {
  constexpr std::int64_t kCount = 20'000;
  const at::Tensor numbers = uniform_numbers(state_at(1, 0, 0), "m", 1, kCount, at::ones({1}));
  EXPECT_GT(numbers.min().item<double>(), 0.0);
  EXPECT_LT(numbers.max().item<double>(), 1.0);
  const double sigma = std::sqrt(1.0 / 12.0 / kCount);
  EXPECT_NEAR(numbers.mean().item<double>(), 0.5, 4 * sigma);
  EXPECT_NEAR(numbers.square().mean().item<double>(), 1.0 / 3.0, 4 * sigma);
}

TEST(RandomNumbers, FixedOnesFollowTheModuleAlone) {
  const at::Tensor numbers = fixed_numbers("m", 9, at::ones({1}));
  ASSERT_EQ(numbers.sizes(), at::IntArrayRef({1, 9}));
  EXPECT_TRUE(at::equal(numbers.narrow(1, 0, 5), fixed_numbers("m", 5, at::ones({1}))));
  EXPECT_FALSE(at::equal(numbers, fixed_numbers("n", 9, at::ones({1}))));
}

TEST(RandomNumbers, MasksHaveThePlacesOfTheirKind) {
  const at::Tensor x = at::zeros({4, 6, 5});
  const ForwardState state = state_at(1, 0, 0);
  using Shape = std::vector<std::int64_t>;
  const std::pair<GainMask, Shape> rows[] = {{GainMask::Element, {4, 6, 5}},
                                             {GainMask::Token, {4, 6, 1}},
                                             {GainMask::Channel, {4, 1, 5}},
                                             {GainMask::Sample, {4, 1, 1}}};
  for (const auto& [mask, shape] : rows) {
    const at::Tensor drawn = draw_mask(mask, at::full({}, 0.4, at::kDouble), x, "m", state);
    EXPECT_EQ(drawn.sizes().vec(), shape) << mask_name(mask);
    const at::Tensor numbers = uniform_numbers(state, "m", 4, drawn.numel() / 4, x).view(shape);
    EXPECT_TRUE(at::equal(drawn != 0, numbers < 0.4)) << mask_name(mask);
    EXPECT_EQ(mask_named(mask_name(mask)), mask);
  }
  EXPECT_NE(test::message_of<Error>([] { mask_named("head"); }).find("element, token"),
            std::string::npos);
}

#if ABLATE_HAS_CUDA

TEST(RandomNumbersGpu, AreThoseOfTheHostAndNeedTheStepOnTheDevice) {
  if (!test::has_gpu()) GTEST_SKIP() << "no GPU";
  ForwardState state = state_at(77, 9, 3);
  const at::Tensor expected = uniform_numbers(state, "m", 5, 11, at::ones({1}));
  const at::Tensor like = at::ones({1}).cuda();
  EXPECT_THROW(uniform_numbers(state, "m", 5, 11, like), Error);
  state.step = 0;
  state.device_step = at::full({}, 9, like.options().dtype(at::kLong));
  EXPECT_TRUE(at::equal(uniform_numbers(state, "m", 5, 11, like).cpu(), expected));
  EXPECT_TRUE(at::equal(fixed_numbers("m", 11, like).cpu(), fixed_numbers("m", 11, at::ones({1}))));
}

#endif  // ABLATE_HAS_CUDA

}  // namespace
}  // namespace ablate
