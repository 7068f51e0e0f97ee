#include <cmath>

#include <gtest/gtest.h>

#include "methods/models/attention.h"
#include "methods/models/ops.h"
#include "tests/support/models.h"

// Attention whose matrix somebody looks at: the row of the class token, and masked tokens.

namespace ablate {
namespace {

constexpr ops::AttentionHeads kClassHeads{
    .count = 2, .query_width = 4, .value_width = 4, .scale_width = 4};

at::Tensor packed_rows(std::int64_t batch, std::int64_t tokens) {
  return at::arange(batch * tokens * 24, at::kDouble).mul(0.71).sin().view({batch, tokens, 24});
}

/// Softmax weights of one query of one head of one sample, number by number.
std::vector<double> weights(const at::Tensor& qkv, std::int64_t head, std::int64_t query,
                            const std::vector<double>& bias) {
  std::vector<double> result;
  double sum = 0;
  for (std::int64_t key = 0; key < qkv.size(0); ++key) {
    double logit = bias[static_cast<std::size_t>(key)];
    for (std::int64_t i = 0; i < 4; ++i) {
      logit +=
          qkv[query][head * 4 + i].item<double>() * qkv[key][8 + head * 4 + i].item<double>() / 2.0;
    }
    result.push_back(std::exp(logit));
    sum += result.back();
  }
  for (double& weight : result) weight /= sum;
  return result;
}

TEST(ClassAttention, IsTheFirstRowOfTheSoftmax) {
  const at::Tensor qkv = packed_rows(2, 5);
  const at::Tensor sizes = at::tensor({1.0, 3.0, 1.0, 2.0, 1.0}, at::kDouble).expand({2, 5});
  for (const bool proportional : {false, true}) {
    const at::Tensor bias = proportional ? sizes.log() : at::Tensor();
    const at::Tensor rows = ops::class_attention(qkv, kClassHeads, bias, {});
    ASSERT_EQ(rows.sizes(), at::IntArrayRef({2, 2, 5}));
    for (std::int64_t sample = 0; sample < 2; ++sample) {
      for (std::int64_t head = 0; head < 2; ++head) {
        std::vector<double> logs(5, 0.0);
        for (std::int64_t i = 0; i < 5 && proportional; ++i) {
          logs[static_cast<std::size_t>(i)] = std::log(sizes[0][i].item<double>());
        }
        const auto expected = weights(qkv[sample], head, 0, logs);
        for (std::int64_t key = 0; key < 5; ++key) {
          EXPECT_NEAR(rows[sample][head][key].item<double>(),
                      expected[static_cast<std::size_t>(key)], 1e-14);
        }
      }
    }
  }
}

at::Tensor plain(const at::Tensor& qkv) {
  ForwardState state;
  return ops::attention(qkv, kClassHeads, {}, state);
}

// What the epsilon of the published formula may do: 1e-6 of the weights.
constexpr double kEpsilonEffect = 3e-6;

TEST(MaskedAttention, WithNothingMaskedIsPlainAttention) {
  const at::Tensor qkv = packed_rows(3, 7);
  const at::Tensor masked =
      ops::masked_attention(qkv, kClassHeads, {}, at::ones({3, 7}, at::kDouble));
  EXPECT_LT(test::largest_difference(masked, plain(qkv)), kEpsilonEffect);
}

TEST(MaskedAttention, OfThoseWhoStayIsAttentionWithoutTheOthers) {
  const at::Tensor qkv = packed_rows(3, 7);
  const at::Tensor stay = at::tensor({0, 2, 3, 6}, at::kLong);
  const at::Tensor mask = at::zeros({3, 7}, at::kDouble).index_fill(1, stay, 1.0);
  const at::Tensor masked = ops::masked_attention(qkv, kClassHeads, {}, mask);
  EXPECT_LT(test::largest_difference(masked.index_select(1, stay),
                                     plain(qkv.index_select(1, stay).contiguous())),
            kEpsilonEffect);
  // One that goes looks at those who stay and at itself.
  const at::Tensor own = at::tensor({0, 2, 3, 4, 6}, at::kLong);
  EXPECT_LT(test::largest_difference(masked.select(1, 4),
                                     plain(qkv.index_select(1, own).contiguous()).select(1, 3)),
            kEpsilonEffect);
  EXPECT_LT(test::largest_difference(
                ops::class_attention(qkv, kClassHeads, {}, mask).index_select(2, stay),
                ops::class_attention(qkv.index_select(1, stay).contiguous(), kClassHeads, {}, {})),
            kEpsilonEffect);
}

TEST(MaskedAttention, HasTheGradientOfItsFormula) {
  const at::Tensor qkv = packed_rows(1, 5).requires_grad_();
  const at::Tensor mask = at::tensor({1.0, 0.0, 1.0, 1.0, 0.0}, at::kDouble).view({1, 5});
  const at::Tensor leaf = mask.clone().requires_grad_();
  const at::Tensor upstream = at::arange(40, at::kDouble).cos().view({1, 5, 8});
  const auto value = [&](const at::Tensor& rows, const at::Tensor& at_mask) {
    return (ops::masked_attention(rows, kClassHeads, {}, at_mask) * upstream).sum();
  };
  value(qkv, leaf).backward();
  constexpr double kStep = 1e-6;
  const auto slope = [&](const at::Tensor& direction, bool of_mask) {
    const at::NoGradGuard no_grad;
    const auto at_step = [&](double step) {
      return value(of_mask ? qkv.detach() : qkv + step * direction,
                   of_mask ? mask + step * direction : mask)
          .item<double>();
    };
    return (at_step(kStep) - at_step(-kStep)) / (2 * kStep);
  };
  for (std::int64_t token = 0; token < 5; ++token) {
    const at::Tensor direction = at::zeros_like(mask);
    direction[0][token] = 1.0;
    EXPECT_NEAR(leaf.grad()[0][token].item<double>(), slope(direction, true), 1e-8) << token;
  }
  const at::Tensor direction = at::arange(qkv.numel(), at::kDouble).mul(1.3).sin().view_as(qkv);
  // The maximum is a constant to the gradient, which epsilon makes felt.
  EXPECT_NEAR((qkv.grad() * direction).sum().item<double>(), slope(direction, false), 1e-6);
}

TEST(ClassAttention, ComesFromTheMixerThatIsAskedAndIsAveragedOverHeads) {
  Attention attention(8, 2);
  attention.to(at::kDouble);
  const at::NoGradGuard no_grad;
  for (auto& item : attention.named_parameters()) {
    item.value().copy_(at::arange(item.value().numel(), at::kDouble).sin().view_as(item.value()));
  }
  const at::Tensor x = at::arange(80, at::kDouble).mul(0.4).cos().view({2, 5, 8});
  ForwardState state;
  attention.forward(x, state);
  EXPECT_FALSE(state.class_attention.defined());
  state.want_class_attention = true;
  attention.forward(x, state);
  const at::Tensor expected =
      ops::class_attention(attention.qkv->forward(x), kClassHeads, {}, {}).mean(1);
  EXPECT_TRUE(at::equal(state.class_attention, expected));
  EXPECT_LT(test::largest_difference(state.class_attention.sum(1), at::ones({2}, at::kDouble)),
            1e-14);
}

}  // namespace
}  // namespace ablate
