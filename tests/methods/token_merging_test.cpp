#include "methods/token_merging.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include <gtest/gtest.h>

#include "methods/models/attention.h"
#include "runner/core/error.h"
#include "runner/core/random.h"
#include "tests/core/expect_error.h"

namespace ablate {
namespace {

using Groups = std::vector<std::vector<std::int64_t>>;

at::Tensor column(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble).view({1, -1, 1});
}

/// Unit vectors at these angles, (1, N, 2).
at::Tensor directions(const std::vector<double>& degrees) {
  const at::Tensor radians = at::tensor(degrees, at::kDouble) * (std::numbers::pi / 180);
  return at::stack({radians.cos(), radians.sin()}, 1).unsqueeze(0);
}

std::vector<double> values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.flatten().to(at::kDouble).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

void expect_near(const at::Tensor& tensor, const std::vector<double>& expected,
                 const std::string& label, double tolerance = 1e-12) {
  const std::vector<double> values = values_of(tensor);
  ASSERT_EQ(values.size(), expected.size()) << label;
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_NEAR(values[i], expected[i], tolerance) << label << ", token " << i;
  }
}

/// Original tokens of each token, from the position of each original token.
Groups groups_of(const at::Tensor& positions, std::size_t count) {
  Groups groups(count);
  std::int64_t token = 0;
  for (const double position : values_of(positions)) {
    groups.at(static_cast<std::size_t>(position)).push_back(token++);
  }
  return groups;
}

// Computed by the public code of Bolya et al., ICLR 2023.
TEST(TokenMerging, GivesThePublishedExamples) {
  struct Row {
    std::vector<std::int64_t> r;  // all of these give the same, by the cap
    std::int64_t protected_tokens;
    std::vector<double> x, sizes;
    Groups groups;
  };
  const std::vector<double> angles{0, 10, 80, 95, 22, 200}, x{1, 2, 3, 4, 5, 6};
  const Row rows[] = {
      {{1}, 0, {5, 3, 1.5, 4, 6}, {1, 1, 2, 1, 1}, {{4}, {2}, {0, 1}, {3}, {5}}},
      {{2}, 0, {3, 8. / 3, 4, 6}, {1, 3, 1, 1}, {{2}, {0, 1, 4}, {3}, {5}}},
      {{3, 9}, 0, {8. / 3, 3.5, 6}, {3, 2, 1}, {{0, 1, 4}, {2, 3}, {5}}},
      {{1}, 1, {1, 3, 3.5, 4, 6}, {1, 1, 2, 1, 1}, {{0}, {2}, {1, 4}, {3}, {5}}},
      {{2, 5}, 1, {1, 3.5, 3.5, 6}, {1, 2, 2, 1}, {{0}, {1, 4}, {2, 3}, {5}}},
      {{1}, 2, {1, 2, 5, 3.5, 6}, {1, 1, 1, 2, 1}, {{0}, {1}, {4}, {2, 3}, {5}}},
      {{2, 3}, 2, {1, 2, 4, 6}, {1, 1, 3, 1}, {{0}, {1}, {2, 3, 4}, {5}}},
  };
  for (const Row& row : rows) {
    for (const std::int64_t r : row.r) {
      const std::string label = cat("r = ", r, ", ", row.protected_tokens, " protected");
      const MergePlan plan = match_tokens(directions(angles), r, row.protected_tokens);
      const auto [merged, sizes] = merge_weighted(plan, column(x), {});
      expect_near(merged, row.x, label);
      expect_near(sizes, row.sizes, label);
      EXPECT_EQ(groups_of(plan.positions, row.groups.size()), row.groups) << label;
    }
  }
}

TEST(TokenMerging, UnmergeCopiesBackAlsoBesideADistillationToken) {
  const std::vector<double> angles{0, 10, 80, 95, 22, 200}, x{1, 2, 3, 4, 5, 6};
  const auto round_trip = [&](std::int64_t r, std::int64_t protected_tokens) {
    const MergePlan plan = match_tokens(directions(angles), r, protected_tokens);
    return unmerge(merge_weighted(plan, column(x), {}).first, plan.positions);
  };
  expect_near(round_trip(1, 2), {1, 2, 3.5, 3.5, 5, 6}, "distillation token");
  expect_near(round_trip(2, 1), {1, 3.5, 3.5, 3.5, 3.5, 6}, "class token");
}

TEST(TokenMerging, OfOddLengthsAndOverTwoLayersGivesThePublishedExample) {
  const at::Tensor metric = directions({0, 10, 80, 95, 22, 200, 97});
  const at::Tensor x = column({1, 2, 3, 4, 5, 6, 7});
  const auto [deep, deep_sizes] = merge_weighted(match_tokens(metric, 3, 1), x, {});
  expect_near(deep, {1, 3.5, 14. / 3, 6}, "r = 3");
  expect_near(deep_sizes, {1, 2, 3, 1}, "r = 3");

  const MergePlan first = match_tokens(metric, 2, 1);
  const auto [merged, sizes] = merge_weighted(first, x, {});
  expect_near(merged, {1, 3, 3.5, 5.5, 6}, "r = 2");
  expect_near(sizes, {1, 1, 2, 2, 1}, "r = 2");
  EXPECT_EQ(groups_of(first.positions, 5), (Groups{{0}, {2}, {1, 4}, {3, 6}, {5}}));

  const at::Tensor second_metric = directions({0, 50, 300, 60, 310});
  const auto [once, once_sizes] = merge_weighted(match_tokens(second_metric, 1, 1), merged, sizes);
  expect_near(once, {1, 3.5, 4.5, 5.5}, "then r = 1");
  expect_near(once_sizes, {1, 2, 2, 2}, "then r = 1");
  const MergePlan second = match_tokens(second_metric, 2, 1);
  const auto [twice, twice_sizes] = merge_weighted(second, merged, sizes);
  expect_near(twice, {1, 4, 5.5}, "then r = 2");
  expect_near(twice_sizes, {1, 4, 2}, "then r = 2");
  const at::Tensor composed = second.positions.gather(1, first.positions);
  EXPECT_EQ(groups_of(composed, 3), (Groups{{0}, {1, 2, 4, 5}, {3, 6}}));
}

double cosine(const at::Tensor& vectors, std::int64_t i, std::int64_t j) {
  const auto v = vectors.accessor<double, 2>();
  double dot = 0, first = 0, second = 0;
  for (std::int64_t k = 0; k < vectors.size(1); ++k) {
    dot += v[i][k] * v[j][k];
    first += v[i][k] * v[i][k];
    second += v[j][k] * v[j][k];
  }
  return dot / std::sqrt(first * second);
}

/// The definition read literally, with loops: partition, best edges, r best sources, groups.
struct Dense {
  std::vector<std::vector<double>> members;  ///< one row of 0 and 1 over old tokens for each new

  Dense(const at::Tensor& metric, std::int64_t r, std::int64_t protected_tokens) {
    const std::int64_t n = metric.size(0);
    r = std::max<std::int64_t>(0, std::min(r, (n - protected_tokens) / 2));
    struct Edge {
      std::int64_t from, to;
      double score;
    };
    std::vector<Edge> edges;
    for (std::int64_t a = 0; a < n; a += 2) {
      Edge best{a, -1, -2};
      for (std::int64_t b = 1; b < n; b += 2) {
        if (b == 1 && protected_tokens == 2) continue;
        const double score = cosine(metric, a, b);
        if (score > best.score) best = {a, b, score};
      }
      if (a == 0 && protected_tokens > 0) best.score = -3;
      edges.push_back(best);
    }
    std::ranges::stable_sort(edges, std::greater<>{}, &Edge::score);
    std::vector<Edge> kept(edges.begin() + r, edges.end());
    edges.resize(static_cast<std::size_t>(r));
    if (protected_tokens > 0 || r == 0) std::ranges::sort(kept, {}, &Edge::from);
    if (r == 0) {
      for (std::int64_t i = 0; i < n; ++i) add_group(n, {i});
      return;
    }
    for (const Edge& edge : kept) add_group(n, {edge.from});
    for (std::int64_t b = 1; b < n; b += 2) {
      std::vector<std::int64_t> group{b};
      for (const Edge& edge : edges) {
        if (edge.to == b) group.push_back(edge.from);
      }
      add_group(n, group);
    }
    if (protected_tokens == 2) {  // the distillation token moves up to place 1
      const auto place = members.begin() + static_cast<std::ptrdiff_t>(kept.size());
      std::rotate(members.begin() + 1, place, place + 1);
    }
  }

  at::Tensor matrix() const {
    std::vector<at::Tensor> rows;
    for (const auto& row : members) rows.push_back(at::tensor(row, at::kDouble));
    return at::stack(rows);
  }

 private:
  void add_group(std::int64_t n, const std::vector<std::int64_t>& group) {
    std::vector<double> row(static_cast<std::size_t>(n), 0.0);
    for (const std::int64_t token : group) row[static_cast<std::size_t>(token)] = 1.0;
    members.push_back(row);
  }
};

at::Tensor random_tensor(RandomStream& random, at::IntArrayRef shape) {
  at::Tensor tensor = at::empty(shape, at::kDouble);
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    tensor.data_ptr<double>()[i] = random.normal();
  }
  return tensor;
}

at::Tensor random_sizes(RandomStream& random, std::int64_t batch, std::int64_t tokens,
                        std::int64_t protected_tokens) {
  at::Tensor sizes = at::ones({batch, tokens, 1}, at::kDouble);
  for (std::int64_t i = 0; i < sizes.numel(); ++i) {
    if (i % tokens >= protected_tokens) sizes.data_ptr<double>()[i] = 1 + random.below(5);
  }
  return sizes;
}

/// One random case against the literal definition, with the laws any merge obeys.
void check_case(RandomStream& random, int number) {
  const std::int64_t protected_tokens = random.below(3);
  const std::int64_t tokens = protected_tokens + 1 + random.below(30);
  const std::int64_t r = random.below(20), batch = 1 + random.below(3);
  SCOPED_TRACE(
      cat("case ", number, ": N = ", tokens, ", r = ", r, ", ", protected_tokens, " protected"));
  const at::Tensor metric = random_tensor(random, {batch, tokens, 4});
  const at::Tensor x = random_tensor(random, {batch, tokens, 3});
  const at::Tensor sizes = random_sizes(random, batch, tokens, protected_tokens);

  const MergePlan plan = match_tokens(metric, r, protected_tokens);
  const auto [merged, merged_sizes] = merge_weighted(plan, x, sizes);
  ASSERT_EQ(merged.size(1), tokens - std::min(r, (tokens - protected_tokens) / 2));
  if (plan.merged() == 0) {
    EXPECT_TRUE(at::equal(merged, x) && at::equal(merged_sizes, sizes));
    return;
  }
  EXPECT_TRUE(at::equal(merged_sizes.sum(1), sizes.sum(1)));
  EXPECT_TRUE(at::allclose((merged * merged_sizes).sum(1), (x * sizes).sum(1), 0, 1e-12));
  EXPECT_TRUE(at::equal(merged.narrow(1, 0, protected_tokens), x.narrow(1, 0, protected_tokens)));
  EXPECT_TRUE((merged_sizes.narrow(1, 0, protected_tokens) == 1).all().item<bool>());

  const at::Tensor positions = plan.positions;
  for (std::int64_t b = 0; b < batch; ++b) {
    const at::Tensor dense = Dense(metric[b], r, protected_tokens).matrix();
    const at::Tensor one_hot = at::one_hot(positions[b], merged.size(1)).t().to(at::kDouble);
    ASSERT_TRUE(at::equal(one_hot, dense));
    EXPECT_TRUE(at::equal(merge_sum(plan, sizes)[b], at::matmul(dense, sizes[b])));
    const at::Tensor expected = at::matmul(dense, x[b] * sizes[b]) / at::matmul(dense, sizes[b]);
    EXPECT_TRUE(at::allclose(merged[b], expected, 0, 1e-12));
    EXPECT_TRUE(at::equal(unmerge(merged, positions)[b], at::matmul(dense.t(), merged[b])));
  }
}

TEST(TokenMerging, EqualsTheLiteralDefinitionOnRandomCases) {
  RandomStream random(1, Purpose::Test);
  for (int number = 0; number < 300; ++number) check_case(random, number);
}

TEST(TokenMerging, TreatsEachSampleByItself) {
  RandomStream random(2, Purpose::Test);
  const at::Tensor metric = random_tensor(random, {5, 17, 4}),
                   x = random_tensor(random, {5, 17, 2});
  const at::Tensor order = at::tensor({3, 0, 4, 1, 2}, at::kLong);
  const auto merge = [](const at::Tensor& keys, const at::Tensor& tokens) {
    return merge_weighted(match_tokens(keys, 6, 1), tokens, {}).first;
  };
  const at::Tensor together = merge(metric, x);
  EXPECT_TRUE(at::equal(merge(metric.index_select(0, order), x.index_select(0, order)),
                        together.index_select(0, order)));
  EXPECT_TRUE(
      at::equal(merge(metric.narrow(0, 2, 1), x.narrow(0, 2, 1)), together.narrow(0, 2, 1)));
}

TEST(TokenMerging, HasTheGradientOfAveragePooling) {
  RandomStream random(3, Purpose::Test);
  const at::Tensor metric = random_tensor(random, {2, 9, 4});
  const MergePlan plan = match_tokens(metric, 3, 1);
  at::Tensor x = random_tensor(random, {2, 9, 2}).requires_grad_();
  const at::Tensor sizes = random_sizes(random, 2, 9, 1);

  const auto [merged, merged_sizes] = merge_weighted(plan, x, sizes);
  (merged * merged_sizes).sum().backward();
  EXPECT_TRUE(at::allclose(x.grad(), sizes.expand({2, 9, 2}), 0, 1e-12));

  // The map is linear in x, so one difference quotient is exact but for rounding.
  const at::Tensor weights = random_tensor(random, {2, 6, 2}),
                   step = random_tensor(random, {2, 9, 2});
  const auto loss = [&](const at::Tensor& input) {
    const auto [tokens, token_sizes] = merge_weighted(plan, input, sizes);
    return unmerge(tokens, plan.positions).sum() + (tokens * weights).sum();
  };
  x.mutable_grad().zero_();
  loss(x).backward();
  const double slope = (loss(x + step) - loss(x)).item<double>();
  EXPECT_NEAR((x.grad() * step).sum().item<double>(), slope, 1e-10);
}

TEST(TokenMerging, MatchesOutsideAutograd) {
  RandomStream random(4, Purpose::Test);
  const at::Tensor metric = random_tensor(random, {1, 8, 4}).requires_grad_();
  const auto [merged, sizes] = merge_weighted(match_tokens(metric, 2, 1), metric.detach(), {});
  EXPECT_FALSE(merged.requires_grad());
}

TEST(TokenMerging, TiesGoToTheFirstPartnerAndTheFirstSources) {
  const MergePlan plan = match_tokens(at::ones({1, 8, 1}), 2, 1);
  EXPECT_EQ(groups_of(plan.positions, 6), (Groups{{0}, {6}, {1, 2, 4}, {3}, {5}, {7}}));
}

TEST(TokenMerging, AZeroKeyIsLikeNothingAndNotNan) {
  at::Tensor metric = directions({0, 10, 80, 95, 22, 200}).clone();
  metric.select(1, 4).zero_();
  const MergePlan plan = match_tokens(metric, 1, 1);
  EXPECT_EQ(groups_of(plan.positions, 5), (Groups{{0}, {4}, {1}, {2, 3}, {5}}));
}

TEST(TokenMerging, KeepsSizesExactInHalfPrecision) {
  const at::Tensor metric = directions({0, 10, 80, 95, 22, 200}).to(at::kBFloat16);
  const at::Tensor x = column({1, 2, 3, 4, 5, 6}).to(at::kBFloat16);
  const at::Tensor sizes = column({1, 301, 1, 1, 2, 1}).to(at::kFloat);
  const auto [merged, merged_sizes] = merge_weighted(match_tokens(metric, 1, 1), x, sizes);
  expect_near(merged_sizes, {1, 1, 303, 1, 1}, "bfloat16 counts to 256 only");
  EXPECT_EQ(merged.scalar_type(), at::kBFloat16);
  expect_near(merged, {1, 3, 2.015625, 4, 6}, "612 / 303 in bfloat16");
}

TEST(TokenMerging, RefusesMisuse) {
  EXPECT_THROW(match_tokens(at::ones({1, 8, 3}), 2, 3), BugError);
  const MergePlan plan = match_tokens(at::ones({1, 8, 3}), 2, 1);
  EXPECT_THROW(merge_sum(plan, at::ones({1, 9, 3})), BugError);
  EXPECT_FALSE(match_tokens(at::ones({1, 8, 3}), 0, 1).positions.defined());
}

// D2; sums fall short of r * depth by truncation, as published.
TEST(MergeSchedule, GivesThePublishedSchedules) {
  using Schedule = std::vector<std::int64_t>;
  EXPECT_EQ(merge_schedule(13, 0, 12), Schedule(12, 13));
  EXPECT_EQ(merge_schedule(16, -1, 12), (Schedule{32, 29, 26, 23, 20, 17, 14, 11, 8, 5, 2, 0}));
  EXPECT_EQ(merge_schedule(13, -1, 12), (Schedule{26, 23, 21, 18, 16, 14, 11, 9, 7, 4, 2, 0}));
  EXPECT_EQ(merge_schedule(16, 1, 12), (Schedule{0, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32}));
  EXPECT_EQ(merge_schedule(8, -0.5, 12), (Schedule{12, 11, 10, 9, 9, 8, 7, 6, 6, 5, 4, 4}));
  EXPECT_EQ(merge_schedule(8, -1, 24), (Schedule{16, 15, 14, 13, 13, 12, 11, 11, 10, 9, 9, 8,
                                                 7,  6,  6,  5,  4,  4,  3,  2,  2,  1, 0, 0}));
  EXPECT_EQ(merge_schedule(4, -1, 3), (Schedule{8, 4, 0}));
  EXPECT_EQ(merge_schedule(4, -1, 1), (Schedule{8}));
}

// D3: q = k = (1,0), (0,1), (1,1) and v = 1, 2, 4, which an affine map makes of the same tokens.
TEST(ProportionalAttention, GivesThePublishedNumbers) {
  Attention attention(2, 1);
  attention.to(at::kDouble);
  const at::NoGradGuard no_grad;
  attention.qkv->weight.copy_(
      at::tensor({1., 0., 0., 1., 1., 0., 0., 1., 2., 3., 0., 0.}, at::kDouble).view({6, 2}));
  attention.qkv->bias.copy_(at::tensor({0., 0., 0., 0., -1., 0.}, at::kDouble));
  attention.proj->weight.copy_(at::eye(2, at::kDouble));
  attention.proj->bias.zero_();
  const at::Tensor tokens = at::tensor({1., 0., 0., 1., 1., 1.}, at::kDouble).view({1, 3, 2});
  ForwardState state;
  expect_near(attention.forward(tokens, state).select(2, 0), {2.401112, 2.604448, 2.758725},
              "plain", 5e-7);
  state.proportional_attention = true;
  state.token_sizes = column({1, 2, 3});
  expect_near(attention.forward(tokens, state).select(2, 0), {3.002780, 3.002524, 3.229444},
              "sizes 1, 2, 3", 5e-7);
  state.token_sizes = column({1, 1, 1});
  expect_near(attention.forward(tokens, state).select(2, 0), {2.401112, 2.604448, 2.758725},
              "sizes 1", 5e-7);
}

}  // namespace
}  // namespace ablate
