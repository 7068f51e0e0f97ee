#include "methods/ela_divergence.h"

#include <cmath>
#include <limits>
#include <numbers>

#include <gtest/gtest.h>

#include "runner/core/error.h"

namespace ablate::methods::ela {
namespace {

/// Logarithms of a row, padded to `width` entries.
at::Tensor log_row(const std::vector<double>& weights, std::int64_t width) {
  at::Tensor row = at::full({width}, -std::numeric_limits<double>::infinity(), at::kDouble);
  for (std::size_t i = 0; i < weights.size(); ++i)
    row[static_cast<std::int64_t>(i)] = std::log(weights[i]);
  return row;
}

double between(Divergence kind, const std::vector<double>& previous,
               const std::vector<double>& current) {
  const auto width = static_cast<std::int64_t>(current.size());
  return row_divergence(kind, log_row(previous, width), log_row(current, width)).item<double>();
}

TEST(ElaDivergence, RowsByHand) {
  const std::vector<double> previous{0.5, 0.3, 0.2}, current{0.4, 0.25, 0.15, 0.2};
  EXPECT_NEAR(between(Divergence::Padded, previous, current), 0.2238046572, 1e-10);
  EXPECT_NEAR(between(Divergence::Shared, previous, current), 0.0006611059, 1e-10);
  EXPECT_NEAR(between(Divergence::SharedReverse, previous, current), 0.0006559006, 1e-10);
  // Of the shared entries alone, in nats.
  const std::vector<double> shared{0.5, 0.3125, 0.1875};
  EXPECT_NEAR(between(Divergence::JensenShannon, previous, shared) * std::numbers::ln2, 0.000164604,
              1e-9);
  const double dot = .5 * .4 + .3 * .25 + .2 * .15;
  const double norms = std::sqrt((.25 + .09 + .04) * (.16 + .0625 + .0225 + .04));
  EXPECT_NEAR(between(Divergence::Cosine, previous, current), 1 - dot / norms, 1e-12);
}

TEST(ElaDivergence, NeighboursOfFourBlocksByHand) {
  const std::vector<std::vector<double>> rows{{1}, {.6, .4}, {.5, .35, .15}, {.1, .1, .1, .7}};
  const std::vector<double> padded{0.5108256238, 0.1628054911, 1.3040057614};
  const std::vector<double> shared{0, 0.0002865616, 0.1000329571};
  const std::vector<double> distance{0.8, 0.3, 1.4};
  for (std::size_t i = 0; i < 3; ++i) {
    const double d = between(Divergence::Padded, rows[i], rows[i + 1]);
    EXPECT_NEAR(d, padded[i], 1e-10);
    EXPECT_NEAR(between(Divergence::Shared, rows[i], rows[i + 1]), shared[i], 1e-10);
    // It splits into the weight of the block itself and what the rows share.
    EXPECT_NEAR(d, -std::log(1 - rows[i + 1].back()) + shared[i], 1e-10);
    double l1 = rows[i + 1].back();
    for (std::size_t j = 0; j <= i; ++j) l1 += std::abs(rows[i][j] - rows[i + 1][j]);
    EXPECT_NEAR(l1, distance[i], 1e-12);
    EXPECT_LE(l1, std::sqrt(2 * d)) << "Pinsker's inequality";
  }
}

TEST(ElaDivergence, UniformRows) {
  for (int t = 2; t <= 6; ++t) {
    const std::vector<double> previous(static_cast<std::size_t>(t - 1), 1.0 / (t - 1));
    const std::vector<double> current(static_cast<std::size_t>(t), 1.0 / t);
    const double d = between(Divergence::Padded, previous, current);
    EXPECT_NEAR(d, std::log(t / (t - 1.0)), 1e-12);
    EXPECT_NEAR(1 - std::exp(-d), 1.0 / t, 1e-12);
    EXPECT_NEAR(between(Divergence::Shared, previous, current), 0, 1e-12);
  }
}

/// Logits of rows (8, 2, t - 1) and (8, 2, t) from one generator of waves, with some spread.
std::pair<at::Tensor, at::Tensor> wavy_logits(std::int64_t t, double spread) {
  const at::Tensor a = (at::arange(16 * (t - 1), at::kDouble) * 1.7).sin().view({8, 2, t - 1});
  const at::Tensor b = (at::arange(16 * t, at::kDouble) * 0.9 + 2).cos().view({8, 2, t});
  return {spread * a, spread * b};
}

at::Tensor padded_rows(const at::Tensor& logits, std::int64_t width) {
  return at::constant_pad_nd(logits.log_softmax(-1), {0, width - logits.size(-1)},
                             -std::numeric_limits<double>::infinity());
}

TEST(ElaDivergence, PropertiesOfRows) {
  for (const std::int64_t t : {2, 3, 7}) {
    const auto [a, b] = wavy_logits(t, 3.0);
    const at::Tensor previous = padded_rows(a, t), current = padded_rows(b, t);
    for (const Divergence kind : {Divergence::Padded, Divergence::Shared, Divergence::SharedReverse,
                                  Divergence::JensenShannon, Divergence::Cosine}) {
      const at::Tensor d = row_divergence(kind, previous, current);
      EXPECT_EQ(d.sizes(), (at::IntArrayRef{8, 2}));
      EXPECT_GE(d.min().item<double>(), -1e-12) << divergence_name(kind);
      const at::Tensor shifted = padded_rows(b + 5, t);
      EXPECT_TRUE(at::allclose(row_divergence(kind, previous, shifted), d))
          << divergence_name(kind);
      EXPECT_NEAR(row_divergence(kind, previous, previous).abs().max().item<double>(), 0, 1e-12);
    }
    const at::Tensor js = row_divergence(Divergence::JensenShannon, previous, current);
    EXPECT_LE(js.max().item<double>(), 1.0 + 1e-12);
    // Jointly convex: rows averaged first are no further apart than rows are on average.
    const at::Tensor of_means = row_divergence(Divergence::MeanRows, previous.exp().mean(0).log(),
                                               current.exp().mean(0).log());
    const at::Tensor mean = row_divergence(Divergence::Padded, previous, current).mean(0);
    EXPECT_TRUE((of_means <= mean + 1e-12).all().item<bool>());
  }
}

TEST(ElaDivergence, DisjointRowsAreAsFarAsCanBe) {
  const std::vector<double> none{1, 1e-300}, all{1e-300, 1};
  EXPECT_NEAR(between(Divergence::JensenShannon, none, all), 1.0, 1e-12);
  EXPECT_NEAR(between(Divergence::Cosine, none, all), 1.0, 1e-12);
}

TEST(ElaDivergence, SaturatedRowsStayFiniteInFloat) {
  const auto [a, b] = wavy_logits(5, 80.0);
  for (const Divergence kind : {Divergence::Padded, Divergence::Shared, Divergence::SharedReverse,
                                Divergence::JensenShannon, Divergence::Cosine}) {
    const at::Tensor d =
        row_divergence(kind, padded_rows(a.to(at::kFloat), 5), padded_rows(b.to(at::kFloat), 5));
    EXPECT_TRUE(d.isfinite().all().item<bool>()) << divergence_name(kind);
  }
}

TEST(ElaDivergence, GatesByHand) {
  const at::Tensor first = at::tensor({0.9716820815, 0.6697615493}, at::kDouble).logit();
  const at::Tensor second = at::tensor({0.9441927808, 0.8044296825}, at::kDouble).logit();
  const at::Tensor heads = gate_divergence(Divergence::Bernoulli, first, second);
  EXPECT_NEAR(heads[0].item<double>(), 0.0086745, 1e-7);
  EXPECT_NEAR(heads[1].item<double>(), 0.0503020, 1e-7);
  EXPECT_NEAR(heads.mean().item<double>(), 0.0294883, 1e-7);
  EXPECT_NEAR(gate_divergence(Divergence::Categorical, first, second).item<double>(), 0.0054844,
              1e-7);
}

TEST(ElaDivergence, PropertiesOfGates) {
  const auto [a, b] = wavy_logits(4, 60.0);
  const at::Tensor first = a.narrow(-1, 0, 3), second = b.narrow(-1, 0, 3);
  for (const Divergence kind :
       {Divergence::Bernoulli, Divergence::Categorical, Divergence::Cosine}) {
    const at::Tensor d = gate_divergence(kind, first, second);
    EXPECT_EQ(d.dim(), kind == Divergence::Bernoulli ? 3 : 2);
    EXPECT_TRUE(d.isfinite().all().item<bool>());
    EXPECT_GE(d.min().item<double>(), -1e-12);
    EXPECT_NEAR(gate_divergence(kind, first, first).abs().max().item<double>(), 0, 1e-12);
  }
  // Blind to a scale that all heads share.
  const at::Tensor gates = at::tensor({0.8, 0.4, 0.2}, at::kDouble);
  for (const Divergence kind : {Divergence::Categorical, Divergence::Cosine}) {
    EXPECT_NEAR(gate_divergence(kind, gates.logit(), (gates / 2).logit()).item<double>(), 0, 1e-12);
  }
}

TEST(ElaDivergence, NamesGoBothWays) {
  for (int i = 0; i < 8; ++i) {
    const auto kind = static_cast<Divergence>(i);
    EXPECT_EQ(divergence_named(divergence_name(kind)), kind);
  }
  EXPECT_THROW(divergence_named("kl"), Error);
}

}  // namespace
}  // namespace ablate::methods::ela
