#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/measure/mac_counter.h"
#include "tests/core/expect_error.h"
#include "tests/methods/reduction_support.h"

namespace ablate {
namespace {

using test::apply_method;
using test::Counts;
using test::MethodContext;

double cosine_of(const at::Tensor& a, const at::Tensor& b) {
  return ((a * b).sum() / (a.norm() * b.norm())).item<double>();
}

// Ten tokens by hand: the three least important ones go, then two join the most similar of five.
TEST(DiffRate, DropsThenMergesByImportance) {
  constexpr std::int64_t kTokens = 10, kPrune = 7, kMerge = 5;
  const at::Tensor x =
      at::arange(kTokens * 4, at::kDouble).mul(0.83).sin().add(1.1).view({1, kTokens, 4});
  const at::Tensor importance =
      at::tensor({0.9, 0.1, 0.5, 0.2, 0.8, 0.3, 0.7, 0.05, 0.6, 0.4}, at::kDouble)
          .view({1, kTokens});
  const std::vector<std::int64_t> order{0, 4, 6, 8, 2, 9, 5};
  const at::Tensor sizes = at::arange(1, kTokens + 1, at::kDouble).view({1, kTokens, 1});

  std::vector<at::Tensor> sums;
  std::vector<double> members, size;
  for (std::int64_t i = 0; i < kMerge; ++i) {
    sums.push_back(x[0][order[static_cast<std::size_t>(i)]].clone());
    members.push_back(1);
    size.push_back(static_cast<double>(order[static_cast<std::size_t>(i)] + 1));
  }
  for (std::size_t i = kMerge; i < kPrune; ++i) {
    std::size_t best = 1;  // never the class token
    for (std::size_t j = 1; j < kMerge; ++j) {
      if (cosine_of(x[0][order[i]], x[0][order[j]]) >
          cosine_of(x[0][order[i]], x[0][order[best]])) {
        best = j;
      }
    }
    sums[best] += x[0][order[i]];
    members[best] += 1;
    const double similarity = cosine_of(x[0][order[i]], x[0][order[best]]);
    ASSERT_GT(similarity, 0.0) << "the case would not show what is published";
    size[best] += static_cast<double>(order[i] + 1) * similarity;
  }

  const auto reducer = test::make_token_reducer("diffrate", {{"prune", kPrune}, {"merge", kMerge}});
  ForwardState state;
  state.protected_tokens = 1;
  state.class_attention = importance;
  state.token_sizes = sizes;
  const at::Tensor y = reducer->forward({x}, state).base;
  ASSERT_EQ(y.sizes(), at::IntArrayRef({1, kMerge, 4}));
  ASSERT_EQ(state.token_sizes.sizes(), at::IntArrayRef({1, kMerge, 1}));
  for (std::size_t i = 0; i < kMerge; ++i) {
    const auto row = static_cast<std::int64_t>(i);
    EXPECT_LT(test::largest_difference(y[0][row], sums[i] / members[i]), 1e-14) << i;
    EXPECT_NEAR(state.token_sizes[0][row][0].item<double>(), size[i], 1e-12) << i;
  }
}

TEST(DiffRate, CountsATokenOfNoLikenessAsNothing) {
  // Every token points away from every other, but for the class token.
  const at::Tensor x =
      at::tensor({0.0, 1.0, 1.0, 0.0, -1.0, -0.1, -0.1, -1.0}, at::kDouble).view({1, 4, 2});
  const auto reducer = test::make_token_reducer("diffrate", {{"prune", 4}, {"merge", 2}});
  ForwardState state;
  state.protected_tokens = 1;
  state.class_attention = at::tensor({0.4, 0.3, 0.2, 0.1}, at::kDouble).view({1, 4});
  const at::Tensor y = reducer->forward({x}, state).base;
  EXPECT_LT(test::largest_difference(y[0][1], x[0].narrow(0, 1, 3).mean(0)), 1e-15);
  EXPECT_EQ(state.token_sizes[0][1][0].item<double>(), 1.0);
}

struct Table {
  std::int64_t dim;
  double gmacs;
  Counts prune, merge;
};

/// The tables published for DeiT, with the cost that names each.
const std::vector<Table>& published_tables() {
  static const std::vector<Table> tables{
      {192,
       0.8,
       {197, 197, 196, 186, 166, 147, 117, 103, 92, 80, 74, 3},
       {197, 196, 190, 172, 154, 125, 107, 96, 84, 78, 70, 3}},
      {192,
       1.0,
       {197, 197, 196, 194, 188, 184, 178, 164, 156, 137, 129, 21},
       {197, 197, 196, 190, 186, 154, 148, 156, 145, 135, 125, 21}},
      {384,
       2.3,
       {197, 192, 168, 143, 121, 105, 92, 74, 62, 45, 33, 3},
       {197, 180, 156, 127, 109, 98, 80, 66, 52, 37, 31, 3}},
      {384,
       2.9,
       {197, 196, 190, 168, 150, 139, 129, 117, 99, 78, 58, 3},
       {197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56, 3}},
      {384,
       3.1,
       {197, 197, 194, 180, 160, 147, 137, 129, 115, 92, 76, 3},
       {197, 196, 186, 164, 150, 141, 133, 121, 103, 78, 68, 3}},
      {768,
       8.7,
       {197, 192, 172, 156, 131, 107, 90, 72, 56, 33, 17, 3},
       {197, 178, 162, 141, 115, 96, 78, 60, 47, 21, 13, 3}},
      {768,
       11.5,
       {197, 197, 197, 188, 170, 154, 139, 123, 107, 72, 43, 3},
       {197, 197, 192, 178, 158, 145, 127, 111, 94, 50, 35, 3}},
  };
  return tables;
}

std::string settings_of(const Table& table) {
  return cat("name = 'diffrate'\nprune = [", join(table.prune, ", "), "]\nmerge = [",
             join(table.merge, ", "), "]");
}

TEST(DiffRate, LeavesThePublishedCosts) {
  for (const Table& table : published_tables()) {
    SCOPED_TRACE(cat(table.gmacs, " G at width ", table.dim));
    Counts after;
    std::int64_t tokens = 197;
    for (std::size_t i = 0; i < 12; ++i) {
      tokens = std::min({tokens, table.prune[i], table.merge[i]});
      after.push_back(tokens);
    }
    const auto model = test::narrow_deit();
    MethodContext context(*model);
    apply_method(context, settings_of(table));
    EXPECT_EQ(test::token_counts(*model), after);
    EXPECT_EQ(measure_cost(*model).macs, test::deit_macs(8, 10, test::shifted(after), after));
    const auto gmacs =
        static_cast<double>(test::deit_macs(table.dim, 1000, test::shifted(after), after)) / 1e9;
    EXPECT_NEAR(gmacs, table.gmacs, 0.05);
  }
}

TEST(DiffRate, PutsNothingWhereNothingGoes) {
  const auto model = test::narrow_deit();
  MethodContext context(*model);
  apply_method(context, "name = 'diffrate'\nmerge = [197, 197, 150, 180, 150, 120]");
  EXPECT_EQ(test::reducing_blocks(context), (std::vector<int>{2, 5}));
}

// The counts are totals: the next block with attention does what one without it could not.
TEST(DiffRate, CatchesUpBehindRemovedAttention) {
  const auto model = test::narrow_deit();
  MethodContext context(*model);
  for (const int block : {2, 3}) test::remove_attention(context, block);
  apply_method(context, "name = 'diffrate'\nprune = [197, 190, 170, 150, 130, 110]");
  EXPECT_EQ(test::token_counts(*model),
            (Counts{197, 190, 190, 190, 130, 110, 110, 110, 110, 110, 110, 110}));
}

TEST(DiffRate, LetsAttentionCountSizes) {
  const auto model = test::narrow_deit();
  MethodContext context(*model);
  apply_method(context, settings_of(published_tables()[2]));
  const at::NoGradGuard no_grad;
  ForwardState state;
  model->forward(test::wavy_images(1, 224), state);
  EXPECT_TRUE(state.proportional_attention);
  ASSERT_EQ(state.token_sizes.sizes(), at::IntArrayRef({1, 3, 1}));
  EXPECT_EQ(state.token_sizes[0][0][0].item<double>(), 1.0) << "nobody joins the class token";
}

TEST(DiffRate, RefusesTablesThatDoNotFit) {
  const auto refusal = [](const std::string& settings) {
    return test::message_of<SpecError>([&] {
      const auto model = test::textured_vit();
      MethodContext context(*model);
      apply_method(context, "name = 'diffrate'\n" + settings);
    });
  };
  EXPECT_NE(refusal("").find("nothing to reduce"), std::string::npos);
  EXPECT_NE(refusal("prune = [9, 9, 9, 9]").find("4 numbers for 3 blocks"), std::string::npos);
  EXPECT_NE(refusal("merge = [17, 30]").find("no token goes anywhere"), std::string::npos);
}

}  // namespace
}  // namespace ablate
