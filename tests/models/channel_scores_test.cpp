#include "methods/models/channel_scores.h"

#include <gtest/gtest.h>

#include "methods/models/channel_gates.h"
#include "runner/core/params.h"
#include "runner/core/random.h"

namespace ablate {
namespace {

GateRule rule_with(HeadBalance balance) {
  GateRule rule;
  rule.balance = balance;
  return rule;
}

/// Two heads of four.
at::Tensor worked_example() {
  return at::tensor({.9, .6, .55, .2, .8, .45, .4, .3}, at::kDouble).view({1, 2, 4});
}

TEST(HeadBalance, OfTheWorkedExampleByShift) {
  const GateDecision decision = decide_gates(worked_example(), rule_with(HeadBalance::Shift));
  EXPECT_TRUE(at::allclose(
      decision.adjusted.flatten(),
      at::tensor({.825, .525, .475, .125, .875, .525, .475, .375}, at::kDouble), 0, 1e-12));
  EXPECT_TRUE(at::equal(decision.kept.flatten(),
                        at::tensor({1., 1., 0., 0., 1., 1., 0., 0.}, at::kDouble)));
}

TEST(HeadBalance, OfTheWorkedExampleByRank) {
  const GateDecision decision = decide_gates(worked_example(), rule_with(HeadBalance::Rank));
  EXPECT_TRUE(at::allclose(decision.adjusted.flatten(),
                           at::tensor({.85, .525, .475, .25, .85, .525, .475, .25}, at::kDouble), 0,
                           1e-12));
  EXPECT_TRUE(at::equal(decision.kept.flatten(),
                        at::tensor({1., 1., 0., 0., 1., 1., 0., 0.}, at::kDouble)));
}

TEST(HeadBalance, MultiplicativePutsTheThresholdBetweenWhatStaysAndWhatGoes) {
  const GateDecision decision =
      decide_gates(worked_example(), rule_with(HeadBalance::Multiplicative));
  const at::Tensor factors = at::tensor({.5 / .575, .5 / .425}, at::kDouble).view({1, 2, 1});
  EXPECT_TRUE(at::allclose(decision.adjusted, worked_example() * factors, 0, 1e-12));
  EXPECT_EQ(decision.kept.sum().item<double>(), 4.0);
}

TEST(HeadBalance, NoneLeavesEachHeadToItself) {
  const GateDecision decision = decide_gates(worked_example(), rule_with(HeadBalance::None));
  EXPECT_TRUE(at::equal(decision.kept.sum(2).flatten(), at::tensor({3., 1.}, at::kDouble)));
}

/// Random scores, with many ties in every third draw, all above or all below the threshold in some.
at::Tensor drawn_scores(std::uint64_t draw, std::int64_t heads, std::int64_t width) {
  RandomStream stream(draw, Purpose::Test);
  at::Tensor scores = at::empty({2, heads, width}, at::kDouble);
  double* data = scores.mutable_data_ptr<double>();
  const double low = draw % 7 == 0 ? 0.6 : 0.0, high = draw % 5 == 0 ? 0.45 + low : 1.2;
  for (std::int64_t i = 0; i < scores.numel(); ++i) {
    data[i] = stream.uniform(low, high);
    if (draw % 3 == 0) data[i] = std::floor(data[i] * 4) / 4;
  }
  return scores;
}

TEST(HeadBalance, KeepsEquallyManyOfEveryHeadInTheirOrder) {
  for (std::uint64_t draw = 0; draw < 60; ++draw) {
    for (const HeadBalance balance :
         {HeadBalance::Shift, HeadBalance::Rank, HeadBalance::Multiplicative}) {
      const at::Tensor scores = drawn_scores(draw, 3, 8);
      const GateDecision decision = decide_gates(scores, rule_with(balance));
      const at::Tensor counts = decision.kept.sum(2);
      for (int seat = 0; seat < 2; ++seat) {
        const double k = counts[seat][0].item<double>();
        EXPECT_TRUE((counts[seat] == k).all().item<bool>());
        EXPECT_GE(k, 1.0);
        if (balance != HeadBalance::Rank) {
          const double mean = (scores[seat] >= 0.5).sum().item<double>() / 3.0;
          EXPECT_EQ(k, std::clamp(std::floor(mean + 0.5), 1.0, 8.0)) << draw;
        }
        for (int head = 0; head < 3; ++head) {
          const at::Tensor row = scores[seat][head], kept = decision.kept[seat][head];
          for (int i = 0; i < 8; ++i) {
            for (int j = 0; j < 8; ++j) {
              // Of two, the one with the higher score, or the lower index, stays first.
              const bool before = row[i].item<double>() > row[j].item<double>() ||
                                  (row[i].item<double>() == row[j].item<double>() && i < j);
              if (before) {
                EXPECT_GE(kept[i].item<double>(), kept[j].item<double>());
              }
            }
          }
        }
      }
    }
  }
}

TEST(HeadBalance, RoundsWidthsToWhatHardwareLikes) {
  GateRule rule;
  rule.width_multiple = 8;
  rule.min_share = 0.25;
  EXPECT_EQ(rule.step(3), 8);
  EXPECT_EQ(rule.step(6), 4);
  EXPECT_EQ(rule.step(16), 1);
  EXPECT_EQ(rule.least(6, 64), 16);
  EXPECT_EQ(rule.allowed(21.9, 6, 64), 20);
  EXPECT_EQ(rule.allowed(22.0, 6, 64), 24);
  EXPECT_EQ(rule.allowed(3.0, 6, 64), 16);
  EXPECT_EQ(rule.allowed(70.0, 6, 64), 64);
  EXPECT_EQ(rule.allowed(8.9, 3, 10), 8);
  EXPECT_EQ(rule.allowed(9.0, 3, 10), 10) << "the whole width is allowed, too";
  EXPECT_EQ(rule.allowed(10.0, 3, 10), 10);
  for (std::uint64_t draw = 0; draw < 20; ++draw) {
    const GateDecision decision = decide_gates(drawn_scores(draw, 2, 16), rule);
    const at::Tensor counts = decision.kept.sum(2).flatten();
    EXPECT_TRUE((counts.remainder(4.0) == 0).all().item<bool>());
  }
}

// dL/dm = w (elementwise) dL/db, b taken as a free real number.
TEST(StraightThrough, HandsOnTheGradientOfTheGateTimesTheWeight) {
  at::Tensor m = drawn_scores(1, 2, 5).requires_grad_();
  const at::Tensor w = 0.7 + 0.05 * at::arange(10, at::kDouble).view({1, 2, 5});
  const at::Tensor pull = (at::arange(20, at::kDouble) * 0.3).sin().view({2, 2, 5});
  const GateRule rule;
  const at::Tensor scores = m * w;
  const at::Tensor gates = straight_through(scores, decide_gates(scores, rule), rule);
  EXPECT_TRUE(((gates == 0.0) | (gates == 1.0)).all().item<bool>());
  (gates * pull).square().sum().backward();
  const at::Tensor free = 2.0 * gates.detach() * pull * pull;
  EXPECT_TRUE(at::allclose(m.grad(), free * w, 0, 1e-14));
}

TEST(StraightThrough, ClipsOrShapesTheGradientWhenAsked) {
  const at::Tensor values = at::tensor({2.0, 0.6, 0.4, 0.0}, at::kDouble).view({1, 1, 4});
  GateRule rule;
  rule.gradient = StepGradient::Clipped;
  at::Tensor m = values.clone().requires_grad_();
  straight_through(m, decide_gates(m, rule), rule).sum().backward();
  EXPECT_TRUE(at::equal(m.grad().flatten(), at::tensor({0., 1., 1., 1.}, at::kDouble)));
  rule.gradient = StepGradient::Sigmoid;
  rule.temperature = 0.2;
  m = values.clone().requires_grad_();
  straight_through(m, decide_gates(m, rule), rule).sum().backward();
  const at::Tensor height = at::sigmoid((values - 0.5) / 0.2);
  EXPECT_TRUE(at::allclose(m.grad(), height * (1 - height) / 0.2, 0, 1e-12));
}

TEST(ChannelGatesModule, CountsByStackWithGradient) {
  const Value empty;
  Params params(empty, "gates");
  // Two shapes, interleaved.
  ChannelGates gates({{2, 3}, {1, 4}, {2, 3}, {1, 4}}, params);
  gates.train();
  {
    const at::NoGradGuard no_grad;
    gates.scores(0)[0][0] = 0.0;
    gates.scores(0)[1][0] = 0.0;
    gates.scores(3)[0][2] = 0.0;
  }
  const std::vector<at::Tensor> each = gates.forward();
  const at::Tensor counts = gates.take_counts();
  EXPECT_EQ(gates.count_order(), (std::vector<std::size_t>{0, 2, 1, 3}));
  EXPECT_TRUE(at::equal(counts, at::tensor({4.0f, 6.0f, 4.0f, 3.0f})));
  EXPECT_TRUE(at::equal(each[3], at::tensor({1.0f, 1.0f, 0.0f, 1.0f})));
  (counts * at::tensor({1.0f, 2.0f, 3.0f, 4.0f})).sum().backward();
  const auto parameters = gates.named_parameters();
  EXPECT_TRUE((parameters["scores_0"].grad()[0] == 1.0).all().item<bool>());
  EXPECT_TRUE((parameters["scores_0"].grad()[1] == 2.0).all().item<bool>());
  EXPECT_TRUE((parameters["scores_1"].grad()[1] == 4.0).all().item<bool>());
  EXPECT_EQ(gates.parameter_settings().at("scores_0").decay_factor, 0.0);
}

}  // namespace
}  // namespace ablate
