#include "methods/models/window_attention.h"

#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "methods/models/cross_window_attention.h"
#include "methods/models/ops_grid.h"
#include "methods/models/spatial_reduction.h"
#include "tests/support/models.h"

// Softmax attentions of hierarchical transformers against loops over pairs of tokens.

namespace ablate {
namespace {

using test::largest_difference;

at::Tensor scattered_values(at::IntArrayRef sizes, double seed) {
  std::int64_t count = 1;
  for (const std::int64_t size : sizes) count *= size;
  const at::Tensor k = at::arange(count, at::kDouble);
  return ((12.9898 * k + seed).sin() * 43758.5453).frac().view(sizes);
}

template <typename Mixer>
void scatter_parameters(Mixer& mixer) {
  const at::NoGradGuard no_grad;
  double seed = 1;
  for (at::Tensor& parameter : mixer.parameters()) {
    parameter.copy_(0.5 * scattered_values(parameter.sizes(), seed++));
  }
  mixer.to(at::kDouble);
}

/// What a pair of tokens adds to its logit; nothing: the one does not look at the other.
using PairBias = std::function<std::optional<double>(std::int64_t from, std::int64_t to)>;

/// One head: q (N, d), k and v (M, d).
at::Tensor loop_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const PairBias& bias) {
  at::Tensor out = at::zeros({q.size(0), v.size(1)}, at::kDouble);
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(1)));
  for (std::int64_t i = 0; i < q.size(0); ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < k.size(0); ++j) {
      const auto added = bias(i, j);
      if (!added) continue;
      const double weight = std::exp(scale * q[i].dot(k[j]).item<double>() + *added);
      sum += weight;
      out[i] += weight * v[j];
    }
    out[i] /= sum;
  }
  return out;
}

struct Place {
  std::int64_t y, x;
};

TEST(WindowAttention, IsALoopOverPairsOfTheSameWindow) {
  const at::NoGradGuard no_grad;
  constexpr std::int64_t side = 8, window = 4, dim = 6, heads = 2;
  for (const std::int64_t shift : {0, 2}) {
    WindowAttention attention({dim, heads, side, window, shift});
    scatter_parameters(attention);
    const at::Tensor x = scattered_values({2, side * side, dim}, 50);
    ForwardState state;
    const at::Tensor y = attention.forward(x, state);
    const at::Tensor packed = at::linear(x[1], attention.qkv->weight, attention.qkv->bias);
    const at::Tensor table = attention.relative_position_bias_table;
    std::vector<at::Tensor> mixed;
    for (std::int64_t h = 0; h < heads; ++h) {
      const PairBias bias = [&](std::int64_t i, std::int64_t j) -> std::optional<double> {
        const Place a{i / side, i % side}, b{j / side, j % side};
        const auto cell = [&](std::int64_t z) { return (z + side - shift) % side / window; };
        const std::int64_t dy = a.y - b.y, dx = a.x - b.x;
        // Those that the shift alone has brought together are farther apart than a window.
        if (cell(a.y) != cell(b.y) || cell(a.x) != cell(b.x)) return std::nullopt;
        if (std::max(std::abs(dy), std::abs(dx)) >= window) return std::nullopt;
        return table[(dy + window - 1) * (2 * window - 1) + dx + window - 1][h].item<double>();
      };
      const auto part = [&](std::int64_t p) { return packed.narrow(1, p * dim + 3 * h, 3); };
      mixed.push_back(loop_attention(part(0), part(1), part(2), bias));
    }
    const at::Tensor expected =
        at::linear(at::cat(mixed, 1), attention.proj->weight, attention.proj->bias);
    EXPECT_LT(largest_difference(y[1], expected), 1e-12) << "shift " << shift;
  }
}

TEST(WindowAttention, TokensApartGetNoWeightOfEachOther) {
  const at::NoGradGuard no_grad;
  WindowAttention attention({6, 2, 8, 4, 2});
  scatter_parameters(attention);
  const at::Tensor weights = attention.bias().softmax(-1);
  Windows windows({8, 8}, {4, 4}, 2);
  const at::Tensor apart = windows.mask(weights.options()).unsqueeze(1).expand_as(weights) < 0;
  EXPECT_LT(weights.masked_select(apart).max().item<double>(), 1e-30);
  EXPECT_GT(weights.masked_select(apart.logical_not()).min().item<double>(), 1e-4);
}

TEST(Windows, AreCutAndJoinedBackWithTheirGradients) {
  for (const std::int64_t shift : {0, 1}) {
    Windows windows({6, 6}, {2, 3}, shift);
    EXPECT_EQ(windows.count(), 6);
    const at::Tensor x = scattered_values({2, 36, 5}, 51).requires_grad_();
    const at::Tensor cut = windows.cut(x);
    ASSERT_EQ(cut.sizes(), (std::vector<std::int64_t>{12, 6, 5}));
    // Second window of the first image: rows 0 and 1, columns 3 to 5, of the shifted map.
    for (std::int64_t t = 0; t < 6; ++t) {
      const std::int64_t row = (t / 3 + shift) % 6, column = (3 + t % 3 + shift) % 6;
      EXPECT_TRUE(at::equal(cut[1][t], x[0][6 * row + column])) << t;
    }
    EXPECT_TRUE(at::equal(windows.join(cut), x));
    const at::Tensor weight = scattered_values(cut.sizes(), 52);
    (cut * weight).sum().backward();
    EXPECT_TRUE(at::equal(x.grad(), windows.join(weight)));
  }
}

TEST(SpatialReductionAttention, LooksAtTheReducedMap) {
  const at::NoGradGuard no_grad;
  constexpr std::int64_t side = 4, dim = 6, heads = 2;
  SpatialReductionAttention attention(dim, heads, 2);
  scatter_parameters(attention);
  const at::Tensor x = scattered_values({1, side * side, dim}, 53);
  ForwardState state;
  const at::Tensor y = attention.forward(x, state);
  const at::Tensor map = x.transpose(1, 2).reshape({1, dim, side, side});
  const at::Tensor reduced = at::conv2d(map, attention.sr->weight, attention.sr->bias, 2);
  const at::Tensor tokens = at::layer_norm(reduced.flatten(2).transpose(1, 2), {dim},
                                           attention.norm->weight, attention.norm->bias, 1e-5)[0];
  const at::Tensor q = at::linear(x[0], attention.q->weight, attention.q->bias),
                   kv = at::linear(tokens, attention.kv->weight, attention.kv->bias);
  std::vector<at::Tensor> mixed;
  for (std::int64_t h = 0; h < heads; ++h) {
    mixed.push_back(loop_attention(q.narrow(1, 3 * h, 3), kv.narrow(1, 3 * h, 3),
                                   kv.narrow(1, dim + 3 * h, 3),
                                   [](std::int64_t, std::int64_t) { return 0.0; }));
  }
  const at::Tensor expected =
      at::linear(at::cat(mixed, 1), attention.proj->weight, attention.proj->bias);
  EXPECT_LT(largest_difference(y[0], expected), 1e-12);
}

/// Depthwise 3 x 3 convolution of values (N, c) where places look at each other.
at::Tensor loop_encoding(const at::Tensor& v, const Conv2d& conv, std::int64_t side,
                         const PairBias& together) {
  at::Tensor out = at::zeros_like(v) + conv.bias;
  for (std::int64_t i = 0; i < v.size(0); ++i) {
    for (std::int64_t j = 0; j < v.size(0); ++j) {
      const std::int64_t dy = j / side - i / side, dx = j % side - i % side;
      if (std::max(std::abs(dy), std::abs(dx)) > 1 || !together(i, j)) continue;
      out[i] += conv.weight.select(2, dy + 1).select(2, dx + 1).flatten() * v[j];
    }
  }
  return out;
}

TEST(CrossWindowAttention, HalfOfTheHeadsLookAlongColumnsHalfAlongRows) {
  const at::NoGradGuard no_grad;
  constexpr std::int64_t side = 4, dim = 12, stripe = 2, width = 3;
  CrossWindowAttention attention(dim, 4, side, stripe);
  scatter_parameters(attention);
  const at::Tensor x = scattered_values({2, side * side, dim}, 54);
  ForwardState state;
  const at::Tensor y = attention.forward(x, state);
  const at::Tensor packed = at::linear(x[1], attention.qkv->weight, attention.qkv->bias);
  const auto children = attention.named_children();
  std::vector<at::Tensor> mixed;
  for (std::int64_t branch = 0; branch < 2; ++branch) {
    const PairBias together = [&](std::int64_t i, std::int64_t j) -> std::optional<double> {
      const auto cell = [&](std::int64_t z) {
        return (branch == 0 ? z % side : z / side) / stripe;
      };
      return cell(i) == cell(j) ? std::optional(0.0) : std::nullopt;
    };
    std::vector<at::Tensor> heads;
    for (std::int64_t h = 0; h < 2; ++h) {
      const auto part = [&](std::int64_t p) {
        return packed.narrow(1, p * dim + branch * dim / 2 + h * width, width);
      };
      heads.push_back(loop_attention(part(0), part(1), part(2), together));
    }
    const auto conv =
        std::dynamic_pointer_cast<Conv2d>(children[branch == 0 ? "get_v0" : "get_v1"]);
    const at::Tensor values = packed.narrow(1, 2 * dim + branch * dim / 2, dim / 2);
    mixed.push_back(at::cat(heads, 1) + loop_encoding(values, *conv, side, together));
  }
  const at::Tensor expected =
      at::linear(at::cat(mixed, 1), attention.proj->weight, attention.proj->bias);
  EXPECT_LT(largest_difference(y[1], expected), 1e-12);
}

}  // namespace
}  // namespace ablate
