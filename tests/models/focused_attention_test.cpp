#include "methods/models/focused_attention.h"

#include <cmath>

#include <gtest/gtest.h>

#include "methods/models/ops_grid.h"
#include "tests/support/models.h"

namespace ablate {
namespace {

using test::largest_difference;

/// Values in (-1, 1) without a pattern, another one for each seed.
at::Tensor noise(at::IntArrayRef sizes, double seed) {
  std::int64_t count = 1;
  for (const std::int64_t size : sizes) count *= size;
  const at::Tensor k = at::arange(count, at::kDouble);
  return ((12.9898 * k + seed).sin() * 43758.5453).frac().view(sizes);
}

void fill_with_noise(torch::nn::Module& module) {
  const at::NoGradGuard no_grad;
  double seed = 1;
  for (at::Tensor& parameter : module.parameters()) {
    parameter.copy_(0.5 * noise(parameter.sizes(), seed++));
  }
}

constexpr std::int64_t kSide = 7, kHeads = 3, kWidth = 8, kDim = kHeads * kWidth,
                       kTokens = kSide * kSide;

std::shared_ptr<FocusedLinearAttention> make_attention(std::int64_t prefix = 0) {
  const auto attention = std::make_shared<FocusedLinearAttention>(FocusedAttentionOptions{
      .dim = kDim, .num_heads = kHeads, .map_side = kSide, .prefix_tokens = prefix});
  fill_with_noise(*attention);
  attention->to(at::kDouble);
  return attention;
}

/// What the module computes, head by head through matrices between all tokens.
struct Explicit {
  Explicit(const FocusedLinearAttention& attention, const at::Tensor& x)
      : packed(at::linear(x, attention.qkv->weight, attention.qkv->bias)),
        scale((1 + attention.scale.exp()).log()) {
    const at::Tensor q = focused(packed.narrow(1, 0, kDim)),
                     k = focused(packed.narrow(1, kDim, kDim) + attention.positional_encoding[0]);
    for (std::int64_t h = 0; h < kHeads; ++h) {
      const at::Tensor products =
          q.narrow(1, h * kWidth, kWidth).matmul(k.narrow(1, h * kWidth, kWidth).t());
      const auto tokens = static_cast<double>(x.size(0));
      shares.push_back(products / (products.sum(1, true) + tokens * 1e-6));
    }
  }

  at::Tensor focused(const at::Tensor& x) const {
    const at::Tensor u = (x.clamp_min(0) + 1e-6) / scale[0], cube = u * u * u;
    return cube * (u.square().sum(1, true).sqrt() / cube.square().sum(1, true).sqrt());
  }
  at::Tensor values(std::int64_t head) const {
    return packed.narrow(1, 2 * kDim + head * kWidth, kWidth);
  }

  at::Tensor packed, scale;
  std::vector<at::Tensor> shares;  ///< of each head, (tokens, tokens)
};

/// The depthwise convolution of a channel as a matrix between places.
at::Tensor convolution_matrix(const FocusedLinearAttention& attention, std::int64_t channel) {
  const at::Tensor kernel = attention.dwc->weight.detach()[channel][0];
  const std::int64_t reach = kernel.size(0) / 2;
  at::Tensor matrix = at::zeros({kTokens, kTokens}, at::kDouble);
  for (std::int64_t to = 0; to < kTokens; ++to) {
    for (std::int64_t from = 0; from < kTokens; ++from) {
      const std::int64_t y = from / kSide - to / kSide, x = from % kSide - to % kSide;
      if (std::max(std::abs(y), std::abs(x)) > reach) continue;
      matrix[to][from] = kernel[reach + y][reach + x];
    }
  }
  return matrix;
}

at::Tensor explicit_output(const FocusedLinearAttention& attention, const at::Tensor& x,
                           std::int64_t prefix = 0) {
  const Explicit found(attention, x);
  std::vector<at::Tensor> columns;
  for (std::int64_t h = 0; h < kHeads; ++h) {
    for (std::int64_t c = 0; c < kWidth; ++c) {
      const at::Tensor value = found.values(h).select(1, c);
      at::Tensor column = found.shares[static_cast<std::size_t>(h)].mv(value);
      column.narrow(0, prefix, kTokens)
          .add_(convolution_matrix(attention, c).mv(value.narrow(0, prefix, kTokens)) +
                attention.dwc->bias[c]);
      columns.push_back(column);
    }
  }
  return at::linear(at::stack(columns, 1), attention.proj->weight, attention.proj->bias);
}

TEST(FocusedLinearAttention, IsItsExplicitMatrixFormAtTwoPrecisions) {
  const at::NoGradGuard no_grad;
  const auto attention = make_attention();
  const at::Tensor x = noise({2, kTokens, kDim}, 77);
  ForwardState state;
  const at::Tensor y = attention->forward(x, state);
  for (std::int64_t image = 0; image < 2; ++image) {
    EXPECT_LT(largest_difference(y[image], explicit_output(*attention, x[image])), 1e-12);
  }
  attention->to(at::kFloat);
  EXPECT_LT(largest_difference(attention->forward(x.to(at::kFloat), state).to(at::kDouble), y),
            1e-5);
}

TEST(FocusedLinearAttention, AClassTokenTakesPartInAttentionAlone) {
  const at::NoGradGuard no_grad;
  const auto attention = make_attention(1);
  const at::Tensor x = noise({1, kTokens + 1, kDim}, 78);
  ForwardState state;
  EXPECT_LT(
      largest_difference(attention->forward(x, state)[0], explicit_output(*attention, x[0], 1)),
      1e-12);
}

// Linear attention cannot tell apart more than d tokens; the convolution makes up for it.
TEST(FocusedLinearAttention, TheConvolutionRestoresTheRank) {
  const at::NoGradGuard no_grad;
  const auto attention = make_attention();
  const Explicit found(*attention, noise({kTokens, kDim}, 79));
  for (const at::Tensor& shares : found.shares) {
    EXPECT_EQ(at::linalg_matrix_rank(shares, 1e-10).item<std::int64_t>(), kWidth);
    const at::Tensor whole = shares + convolution_matrix(*attention, 0);
    EXPECT_EQ(at::linalg_matrix_rank(whole, 1e-10).item<std::int64_t>(), kTokens);
  }
}

// The reference: f_3(1, 2, 2) has norm 3.
TEST(Focus, KeepsTheNormAndDrawsToTheNearestAxis) {
  const at::Tensor unit = at::ones({1, 1, 3}, at::kDouble);
  const at::Tensor x = at::tensor({1., 2., 2.}, at::kDouble).view({1, 1, 3});
  const at::Tensor y = ops::focus(x - 1e-6, unit, {}, 3);
  EXPECT_LT(
      largest_difference(y.flatten(), at::tensor({0.264135, 2.113082, 2.113082}, at::kDouble)),
      1e-6);
  EXPECT_NEAR(y.norm().item<double>(), 3.0, 1e-12);
}

TEST(Focus, IsHomogeneousAndTheIdentityForTheFirstPower) {
  const at::Tensor u = noise({4, 5, 12}, 80).abs() + 0.01, unit = at::ones({1, 1, 12}, at::kDouble);
  for (const std::int64_t p : {2, 3, 8}) {
    const at::Tensor once = ops::focus(u - 1e-6, unit, {}, p),
                     tripled = ops::focus(3 * u - 1e-6, unit, {}, p);
    EXPECT_LT(largest_difference(tripled, 3 * once), 1e-12) << p;
    EXPECT_LT(largest_difference(once.norm(2, {-1}), u.norm(2, {-1})), 1e-12) << p;
  }
  EXPECT_LT(largest_difference(ops::focus(u - 1e-6, unit, {}, 1), u), 1e-12);
}

TEST(Focus, IsFiniteWhereEveryFeatureIsClosed) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t p : {2, 3, 4, 8, 32}) {
      at::Tensor x = -at::ones({1, 2, 8}, type), scale = at::full({1, 1, 8}, std::log(2.0));
      scale[0][0][3] = 0.1;
      x.requires_grad_();
      const at::Tensor y = ops::focus(x, scale.requires_grad_(), {}, p);
      y.to(at::kFloat).sum().backward();
      EXPECT_TRUE(y.isfinite().all().item<bool>()) << p;
      EXPECT_TRUE(x.grad().isfinite().all().item<bool>()) << p;
      EXPECT_TRUE(scale.grad().isfinite().all().item<bool>()) << p;
    }
  }
}

TEST(Focus, HasTheGradientOfFiniteDifferences) {
  const at::Tensor x = noise({1, 3, 6}, 81) + 0.2, weight = noise({1, 3, 6}, 82);
  const auto loss = [&](const at::Tensor& point, const at::Tensor& scale) {
    return (ops::focus(point, scale, {}, 3) * weight).sum();
  };
  at::Tensor point = x.clone().requires_grad_(),
             scale = (noise({1, 1, 6}, 83).abs() + 0.5).requires_grad_();
  loss(point, scale).backward();
  const at::NoGradGuard no_grad;
  const double step = 1e-6;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    at::Tensor shift = at::zeros_like(x);
    shift.view({-1})[i] = step;
    const double slope =
        ((loss(x + shift, scale) - loss(x - shift, scale)) / (2 * step)).item<double>();
    EXPECT_NEAR(point.grad().view({-1})[i].item<double>(), slope, 1e-8) << i;
  }
  for (std::int64_t i = 0; i < scale.numel(); ++i) {
    at::Tensor shift = at::zeros_like(scale);
    shift.view({-1})[i] = step;
    const double slope =
        ((loss(x, scale + shift) - loss(x, scale - shift)) / (2 * step)).item<double>();
    EXPECT_NEAR(scale.grad().view({-1})[i].item<double>(), slope, 1e-8) << i;
  }
}

at::Tensor reorder(const at::Tensor& tokens, const std::vector<std::int64_t>& channels) {
  return tokens.index_select(2, at::tensor(channels, at::kLong));
}

// One kernel for each channel of a head, the same in all heads.
TEST(FocusedLinearAttention, HeadsShareTheKernelsOfTheConvolution) {
  const at::NoGradGuard no_grad;
  const auto attention = make_attention();
  const at::Tensor values = noise({1, kTokens, kDim}, 84);
  std::vector<std::int64_t> other_heads, other_channels;
  for (std::int64_t c = 0; c < kDim; ++c) {
    other_heads.push_back((c + kWidth) % kDim);
    other_channels.push_back(c / kWidth * kWidth + (c + 1) % kWidth);
  }
  const at::Tensor plain = ops::depthwise_conv(values, *attention->dwc);
  EXPECT_LT(largest_difference(ops::depthwise_conv(reorder(values, other_heads), *attention->dwc),
                               reorder(plain, other_heads)),
            1e-12);
  EXPECT_GT(
      largest_difference(ops::depthwise_conv(reorder(values, other_channels), *attention->dwc),
                         reorder(plain, other_channels)),
      0.01);
}

TEST(FocusedLinearAttention, WindowsAreAttentionsOfTheirOwn) {
  const at::NoGradGuard no_grad;
  const FocusedAttentionOptions in_windows{
      .dim = kDim, .num_heads = kHeads, .map_side = 14, .window = kSide};
  FocusedLinearAttention windowed(in_windows);
  fill_with_noise(windowed);
  windowed.to(at::kDouble);
  const auto whole = make_attention();
  const at::Tensor x = noise({1, 14, 14, kDim}, 85);
  ForwardState state;
  const at::Tensor y = windowed.forward(x.view({1, 14 * 14, kDim}), state).view({14, 14, kDim});
  for (const std::int64_t top : {0, 7}) {
    for (const std::int64_t left : {0, 7}) {
      const at::Tensor part = x.slice(1, top, top + 7).slice(2, left, left + 7);
      const at::Tensor expected = whole->forward(part.reshape({1, kTokens, kDim}), state);
      const at::Tensor got = y.slice(0, top, top + 7).slice(1, left, left + 7);
      EXPECT_LT(largest_difference(got.reshape({kTokens, kDim}), expected[0]), 1e-12);
    }
  }
}

TEST(FocusedLinearAttention, StartsWithoutPositionsAndWithEqualScales) {
  const auto model = test::make_model("flatten_vit", "image_size = 16\ndepth = 1\nembed_dim = 24");
  model->initialize(1);
  const auto parameters = model->named_parameters();
  EXPECT_EQ(parameters["blocks.0.attn.positional_encoding"].abs().max().item<double>(), 0.0);
  EXPECT_EQ(parameters["blocks.0.attn.positional_encoding"].sizes(),
            (std::vector<std::int64_t>{1, 17, 24}));
  EXPECT_EQ(parameters["blocks.0.attn.scale"].abs().max().item<double>(), 0.0);
  const at::Tensor kernel = parameters["blocks.0.attn.dwc.weight"];
  EXPECT_EQ(kernel.sizes(), (std::vector<std::int64_t>{8, 1, 5, 5}));
  EXPECT_LE(kernel.abs().max().item<double>(), 0.2);
  EXPECT_GT(kernel.abs().max().item<double>(), 0.19);
}

}  // namespace
}  // namespace ablate
