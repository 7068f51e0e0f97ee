#include <gtest/gtest.h>

#include "methods/token_merging.h"
#include "runner/core/error.h"
#include "tests/methods/reduction_support.h"

// Variants of token merging that its ablations ask for: dropping instead of merging, and matching
// by nothing.

namespace ablate {
namespace {

using test::apply_tome;
using test::Counts;
using test::MethodContext;

at::Tensor metric_of(std::int64_t batch, std::int64_t tokens) {
  return at::arange(batch * tokens * 4, at::kDouble).mul(1.7).sin().view({batch, tokens, 4});
}

TEST(Representatives, AreWhoOthersWouldHaveJoinedAndThoseAlone) {
  for (const std::int64_t front : {0, 1, 2}) {
    const MergePlan plan = match_tokens(metric_of(3, 13), 4, front);
    const at::Tensor kept = representatives(plan);
    ASSERT_EQ(kept.sizes(), at::IntArrayRef({3, 9}));
    for (std::int64_t sample = 0; sample < 3; ++sample) {
      for (std::int64_t group = 0; group < 9; ++group) {
        const auto token = kept[sample][group].item<std::int64_t>();
        EXPECT_EQ(plan.positions[sample][token].item<std::int64_t>(), group);
        const auto members = (plan.positions[sample] == group).sum().item<std::int64_t>();
        // Groups of several are those of a token at an odd place.
        if (members > 1) {
          EXPECT_EQ(token % 2, 1);
        }
      }
    }
  }
}

TEST(ToMe, CanDropInsteadOfMerging) {
  const at::Tensor x = metric_of(2, 11);
  const auto reduce = [&](const Value::Table& table, ForwardState& state) {
    state.protected_tokens = 1;
    return test::make_token_reducer("tome", table)->forward({x}, state).base;
  };
  ForwardState merging, dropping;
  const Value::Table merge{{"r", 3}, {"metric", "features"}};
  const Value::Table prune{{"r", 3}, {"metric", "features"}, {"operation", "prune"}};
  const at::Tensor merged = reduce(merge, merging), dropped = reduce(prune, dropping);
  ASSERT_EQ(dropped.sizes(), merged.sizes());
  EXPECT_FALSE(dropping.token_sizes.defined()) << "a token stands for itself alone";
  for (std::int64_t sample = 0; sample < 2; ++sample) {
    for (std::int64_t i = 0; i < 8; ++i) {
      const at::Tensor row = dropped[sample][i];
      EXPECT_TRUE((x[sample] == row).all(1).any().item<bool>()) << "as it was";
      if (merging.token_sizes[sample][i][0].item<double>() == 1.0) {
        EXPECT_TRUE(at::equal(row, merged[sample][i]));
      }
    }
  }
}

TEST(ToMe, DroppingShortensAsMergingDoes) {
  for (const char* settings : {"r = 13", "r = 13\nmetric = 'random'"}) {
    Counts counts[2];
    for (const bool prune : {false, true}) {
      const auto model = test::narrow_deit();
      MethodContext context(*model);
      apply_tome(context, cat(settings, prune ? "\noperation = 'prune'" : ""));
      counts[prune ? 1 : 0] = test::token_counts(*model);
    }
    EXPECT_EQ(counts[0], counts[1]) << settings;
    EXPECT_EQ(counts[0].back(), 41);
  }
}

TEST(ToMe, MatchesByChanceForEachImageAndStepInTrainingAndOnceElse) {
  const auto reducer = test::make_token_reducer("tome", {{"r", 5}, {"metric", "random"}});
  reducer->qualified_name = "blocks.0.reducer";
  const at::Tensor x = metric_of(1, 15).expand({4, 15, 4}).contiguous();
  const auto reduce = [&](std::int64_t step) {
    ForwardState state;
    state.seed = 2;
    state.step = step;
    state.protected_tokens = 1;
    const at::Tensor y = reducer->forward({x}, state).base;
    EXPECT_TRUE(at::equal(y.select(1, 0), x.select(1, 0))) << "the class token is left alone";
    EXPECT_LT(test::largest_difference((y * state.token_sizes).sum(1), x.sum(1)), 1e-12);
    return y;
  };
  const at::Tensor first = reduce(1);
  EXPECT_FALSE(at::equal(first[0], first[1]));
  EXPECT_FALSE(at::equal(first, reduce(2)));
  EXPECT_TRUE(at::equal(first, reduce(1)));
  reducer->eval();
  const at::Tensor fixed = reduce(1);
  EXPECT_TRUE(at::equal(fixed[0], fixed[3]));
  EXPECT_TRUE(at::equal(fixed, reduce(2)));
}

// Structures of runs that merge have the hash they had before there was a choice.
TEST(ToMe, RecordsTheOperationOnlyWhereItDrops) {
  const auto recorded = [](const std::string& settings) {
    const auto model = test::textured_vit();
    MethodContext context(*model);
    apply_tome(context, settings);
    return std::get<InsertReducer>(context.surgeon().edits().at(0)).params;
  };
  EXPECT_EQ(recorded("r = 2").find("operation"), nullptr);
  ASSERT_NE(recorded("r = 2\noperation = 'prune'").find("operation"), nullptr);
}

}  // namespace
}  // namespace ablate
