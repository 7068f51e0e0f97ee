#include "methods/channel_statistics.h"

#include <gtest/gtest.h>

#include "methods/channel_pruning.h"
#include "methods/models/ops.h"
#include "tests/models/channel_support.h"
#include "tests/support/method_context.h"
#include "tests/support/run_ranks.h"

namespace ablate {
namespace {

using test::golden_images;
using test::golden_vit;

std::unique_ptr<test::MethodContext> golden_context(Model& model) {
  auto context = std::make_unique<test::MethodContext>(model);
  context->batches = {{golden_images(), at::ones({2}, at::kDouble)}};
  context->classes = 5;
  return context;
}

/// Keeps what a pass shows of one group.
class Keeper final : public ChannelObserver {
 public:
  explicit Keeper(const ChannelGroup* group) : group_(group) {}
  void see(const ChannelGroup& group, ChannelOperand operand, const at::Tensor& x) override {
    if (&group == group_) shown[operand] = x.detach().clone();
  }
  std::map<ChannelOperand, at::Tensor> shown;

 private:
  const ChannelGroup* group_;
};

/// A Frobenius norm by brute force of the map, or of its distance from one channel's part, summed
/// over images; queries and keys (B, n, heads * width).
at::Tensor brute_force(const at::Tensor& q, const at::Tensor& k, std::int64_t heads, bool single) {
  const std::int64_t width = q.size(2) / heads;
  at::Tensor result = at::zeros({heads, width}, at::kDouble);
  for (std::int64_t b = 0; b < q.size(0); ++b) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const at::Tensor qh = q[b].narrow(1, h * width, width), kh = k[b].narrow(1, h * width, width);
      const at::Tensor map = at::mm(qh, kh.t());
      for (std::int64_t i = 0; i < width; ++i) {
        const at::Tensor part = at::outer(qh.select(1, i), kh.select(1, i));
        result[h][i] += single ? (map - part).square().sum() : (map - (map - part)).norm();
      }
    }
  }
  return result;
}

TEST(ChannelStatistics, AreWhatTheWholeAttentionMapsSay) {
  const auto model = golden_vit();
  const auto context = golden_context(*model);
  const auto sites = channel_sites(*model);
  const auto statistics =
      channel_statistics(*context, sites, DecisionSplit::Train, 2,
                         {.grams = true, .whole_grams = true, .shares = true, .singles = true});
  const ChannelGroup* qk = sites[3].group;
  ASSERT_EQ(qk->name, "qk");
  Keeper keeper(qk);
  ForwardState state;
  state.channel_observer = &keeper;
  const at::NoGradGuard no_grad;
  model->forward(golden_images(), state);
  const at::Tensor q = keeper.shown.at(ChannelOperand::Query);
  const at::Tensor k = keeper.shown.at(ChannelOperand::Key);
  EXPECT_TRUE(at::allclose(statistics.at(qk).own_share, brute_force(q, k, 2, false), 1e-9, 1e-9));
  EXPECT_TRUE(
      at::allclose(statistics.at(qk).single_distance, brute_force(q, k, 2, true), 1e-9, 1e-9));
  const at::Tensor rows = q.flatten(0, 1);
  for (int h = 0; h < 2; ++h) {
    const at::Tensor part = rows.narrow(1, 6 * h, 6);
    EXPECT_TRUE(at::allclose(statistics.at(qk).query_gram[h], at::mm(part.t(), part), 1e-12));
  }
}

// By hand: phi_q = [[1,2],[0,1]], phi_k = [[1,1],[0,3]], rows tokens: D = (1,
// sqrt 50), E = (50, 1).
TEST(ChannelStatistics, OfTheGoldenMapAgreeWithEachOther) {
  const at::Tensor q = at::tensor({1., 2., 0., 1.}, at::kDouble).view({1, 2, 2});
  const at::Tensor k = at::tensor({1., 1., 0., 3.}, at::kDouble).view({1, 2, 2});
  EXPECT_TRUE(at::allclose(brute_force(q, k, 1, false).flatten(),
                           at::tensor({1., std::sqrt(50.)}, at::kDouble), 0, 1e-12));
  EXPECT_TRUE(at::allclose(brute_force(q, k, 1, true).flatten(), at::tensor({50., 1.}, at::kDouble),
                           0, 1e-12));
}

TEST(ChannelStatistics, LeavePaddingOut) {
  const auto model = golden_vit();
  const auto context = golden_context(*model);
  const StatisticsWish wish{.grams = true, .shares = true};
  const auto sites = channel_sites(*model);
  const auto plain = channel_statistics(*context, sites, DecisionSplit::Train, 2, wish);
  context->batches = {
      {at::cat({golden_images(), golden_images()}), at::tensor({1., 1., 0., 0.}, at::kDouble)}};
  const auto padded = channel_statistics(*context, sites, DecisionSplit::Train, 2, wish);
  for (const ChannelSite& site : sites) {
    EXPECT_TRUE(at::allclose(plain.at(site.group).own_share, padded.at(site.group).own_share));
  }
}

TEST(ChannelStatistics, AreSummedOverRanks) {
  const auto alone = golden_vit();
  const auto context = golden_context(*alone);
  const StatisticsWish wish{.shares = true};
  const auto sites = channel_sites(*alone);
  const auto expected = channel_statistics(*context, sites, DecisionSplit::Train, 2, wish);
  test::run_ranks(2, [&](Communicator& world) {
    const auto model = golden_vit();
    test::MethodContext mine(*model, world);
    mine.batches = {{golden_images().narrow(0, world.rank(), 1), at::ones({1}, at::kDouble)}};
    const auto own = channel_sites(*model);
    const auto found = channel_statistics(mine, own, DecisionSplit::Train, 2, wish);
    for (std::size_t i = 0; i < own.size(); ++i) {
      EXPECT_TRUE(at::allclose(found.at(own[i].group).own_share,
                               expected.at(sites[i].group).own_share, 1e-12, 0));
    }
  });
}

// The derivative of the loss of each image by the gate of a channel, by differences.
TEST(TaylorImportance, IsTheSquaredSlopeOfEachImage) {
  const auto model = golden_vit();
  const auto context = golden_context(*model);
  const auto sites = channel_sites(*model);
  const auto importance = taylor_importance(*context, sites, DecisionSplit::Train, 2);
  for (const std::size_t place : {std::size_t{0}, std::size_t{4}, std::size_t{8}}) {
    const ChannelGroup* group = sites[place].group;
    const std::int64_t channel = group->channels() / 2;
    double expected = 0;
    for (int image = 0; image < 2; ++image) {
      const auto loss_at = [&](double gate) {
        const at::NoGradGuard no_grad;
        ForwardState state;
        at::Tensor gates = at::ones({group->channels()}, at::kDouble);
        gates[channel] = gate;
        state.channel_gates[group] = gates;
        const at::Tensor logits = model->forward(golden_images().narrow(0, image, 1), state);
        return ops::cross_entropy(
                   logits, {.labels = at::full({1}, image, at::kLong), .other = {}, .mix = {}})
            .item<double>();
      };
      expected += std::pow((loss_at(1 + 1e-4) - loss_at(1 - 1e-4)) / 2e-4, 2);
    }
    EXPECT_NEAR(importance.at(group).flatten()[channel].item<double>(), expected,
                1e-6 * expected + 1e-14)
        << group->name;
  }
}

TEST(WeightMagnitude, TakesRowsAndColumnsTogether) {
  const auto model = golden_vit();
  const auto sites = channel_sites(*model);
  const auto p = model->named_parameters();
  const at::Tensor qkv = p["blocks.0.attn.qkv.weight"], proj = p["blocks.0.attn.proj.weight"];
  const double qk = std::sqrt((qkv[3].square().sum() + qkv[12 + 3].square().sum()).item<double>());
  EXPECT_NEAR(weight_magnitude(sites[0])[0][3].item<double>(), qk, 1e-13);
  const double v =
      std::sqrt((qkv[24 + 8].square().sum() + proj.select(1, 8).square().sum()).item<double>());
  EXPECT_NEAR(weight_magnitude(sites[1])[1][2].item<double>(), v, 1e-13);
  EXPECT_NEAR(reader_norms(sites[1])[1][2].item<double>(), proj.select(1, 8).norm().item<double>(),
              1e-13);
}

}  // namespace
}  // namespace ablate
