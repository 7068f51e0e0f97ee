#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/methods/reduction_support.h"

namespace ablate {
namespace {

using test::MethodContext;

/// Tokens that carry their numbers: which ones are left, by sample.
at::Tensor survivors(TokenReducer& reducer, ForwardState state, std::int64_t batch,
                     std::int64_t tokens = 41) {
  state.protected_tokens = 1;
  const at::Tensor x = at::arange(tokens, at::kDouble).view({1, tokens, 1}).expand({batch, -1, 2});
  return reducer.forward({x.contiguous()}, state).base.select(2, 0);
}

ForwardState at_step(std::int64_t step, std::int64_t first_position = 0) {
  ForwardState state;
  state.seed = 8;
  state.step = step;
  state.first_position = first_position;
  return state;
}

TEST(RandomPruning, KeepsTheClassTokenAndAShareOfTheOthers) {
  const auto reducer = test::make_token_reducer("random_pruning", {{"keep", 0.4}});
  reducer->qualified_name = "blocks.1.reducer";
  for (const bool training : {true, false}) {
    reducer->train(training);
    const at::Tensor left = survivors(*reducer, at_step(3), 5);
    ASSERT_EQ(left.sizes(), at::IntArrayRef({5, 17}));  // 1 + 0.4 * 40
    EXPECT_TRUE((left.select(1, 0) == 0).all().item<bool>());
    const at::Tensor sorted = std::get<0>(left.sort(1));
    EXPECT_TRUE((sorted.diff(1, 1) > 0).all().item<bool>()) << "no token twice";
  }
}

TEST(RandomPruning, DrawsForEachImageAndStepInTrainingAndOnceElse) {
  const auto reducer = test::make_token_reducer("random_pruning", {{"keep", 0.4}});
  reducer->qualified_name = "blocks.1.reducer";
  const at::Tensor left = survivors(*reducer, at_step(3), 6);
  EXPECT_FALSE(at::equal(left[0], left[1]));
  EXPECT_FALSE(at::equal(left, survivors(*reducer, at_step(4), 6)));
  // The second half of the batch, by another rank.
  EXPECT_TRUE(at::equal(left.narrow(0, 3, 3), survivors(*reducer, at_step(3, 3), 3)));
  const auto other = test::make_token_reducer("random_pruning", {{"keep", 0.4}});
  other->qualified_name = "blocks.2.reducer";
  EXPECT_FALSE(at::equal(left, survivors(*other, at_step(3), 6)));

  reducer->eval();
  const at::Tensor fixed = survivors(*reducer, at_step(3), 6);
  EXPECT_TRUE(at::equal(fixed[0], fixed[5]));
  EXPECT_TRUE(at::equal(fixed.narrow(0, 0, 2), survivors(*reducer, at_step(9, 4), 2)));
}

// Every token with the same probability: 0.4 of 2000 draws, within 5 standard deviations.
TEST(RandomPruning, FavoursNobody) {
  const auto reducer = test::make_token_reducer("random_pruning", {{"keep", 0.4}});
  reducer->qualified_name = "r";
  const at::Tensor left = survivors(*reducer, at_step(0), 2000);
  const at::Tensor counts = at::bincount(left.narrow(1, 1, 16).flatten().to(at::kLong), {}, 41);
  const double sigma = std::sqrt(2000 * 0.4 * 0.6);
  EXPECT_TRUE(((counts.narrow(0, 1, 40) - 800.0).abs() < 5 * sigma).all().item<bool>()) << counts;
}

TEST(RandomPruning, ShortensTheModelAtItsStages) {
  const auto model = test::narrow_deit();
  MethodContext context(*model);
  test::apply_method(context, "name = 'random_pruning'\nkeep = 0.5");
  EXPECT_EQ(test::token_counts(*model),
            (test::Counts{197, 197, 197, 99, 99, 99, 50, 50, 50, 26, 26, 26}));
  const std::string refusal = test::message_of<SpecError>([&] {
    const auto other = test::narrow_deit();
    MethodContext there(*other);
    test::apply_method(there, "name = 'random_pruning'\nblocks = [12]");
  });
  EXPECT_NE(refusal.find("blocks are 0 to 11"), std::string::npos) << refusal;
}

TEST(RandomPruning, DoesNotLetSourcesBeFollowed) {
  const auto reducer = test::make_token_reducer("random_pruning", {{"keep", 0.4}});
  ForwardState state = at_step(0);
  state.track_sources = true;
  EXPECT_THROW(survivors(*reducer, state, 2), Error);
}

}  // namespace
}  // namespace ablate
