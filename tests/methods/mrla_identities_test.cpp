#include <cmath>

#include <gtest/gtest.h>

#include "methods/models/layer_maps.h"
#include "tests/methods/mrla_support.h"

// When the forms of layer attention, and what stands in for skipped retrievals, are the same.

namespace ablate {
namespace {

using test::largest_difference;
using test::MrlaStage;
using test::wavy_maps;

/// Copies the parameters that both kinds have.
template <typename From, typename To>
void copy_common(const MrlaStage<From>& from, MrlaStage<To>& to) {
  const at::NoGradGuard no_grad;
  for (int i = 0; i < std::ssize(from.modules); ++i) {
    for (const char* name : {"query", "key", "value"}) {
      to.parameter(i, name).copy_(from.parameter(i, name));
    }
  }
}

TEST(MrlaForms, AreOneWhenTheGateIsOpenInTheFirstBlock) {
  MrlaStage<MrlaBase> base(1, 4, 2);
  MrlaStage<MrlaLight> light(1, 4, 2);
  light.set("gain", at::zeros({1}, at::kDouble));
  light.set("query", at::full({1}, 40.0, at::kDouble));
  light.set("key", at::full({1}, 40.0, at::kDouble));
  copy_common(light, base);
  std::vector<at::Tensor> map{at::ones({1, 4, 3, 3}, at::kDouble) + 0.1 * wavy_maps(1, 1, 4, 3)[0]};
  const at::Tensor o = light.retrieve(map, wavy_maps(1, 1, 4, 3))[0];
  EXPECT_TRUE(at::equal(o, base.retrieve(map)[0]));
}

// A logit far above the others makes softmax choose the block's own value.
TEST(MrlaForms, AreOneWhenABlockRetrievesItself) {
  MrlaStage<MrlaBase> base(3, 4, 2);
  MrlaStage<MrlaLight> light(3, 4, 2);
  light.set("gain", at::zeros({1}, at::kDouble));
  copy_common(base, light);
  for (const int block : {1, 2}) {
    const at::NoGradGuard no_grad;
    for (const char* name : {"query", "key"}) {
      base.parameter(block, name).fill_(300.0 * block);
      light.parameter(block, name).fill_(300.0 * block);
    }
  }
  std::vector<at::Tensor> maps;
  for (const at::Tensor& map : wavy_maps(3, 2, 4, 3)) maps.push_back(map + 2.0);
  const auto softmax = base.retrieve(maps), gated = light.retrieve(maps, maps);
  for (std::size_t i = 1; i < 3; ++i) EXPECT_LT(largest_difference(softmax[i], gated[i]), 1e-12);
}

/// Three blocks whose queries are equal: equal maps as far as the means go that queries are made
/// of.
struct StationaryStage {
  StationaryStage() : stage(4, 8, 4) {
    const at::NoGradGuard no_grad;
    const auto means = wavy_maps(1, 2, 8, 1)[0];
    for (int i = 0; i < 4; ++i) {
      const at::Tensor map = wavy_maps(4, 2, 8, 5)[static_cast<std::size_t>(i)];
      maps.push_back(map - map.mean({2, 3}, true) + 1.5 * means);
      stage.parameter(i, "query").copy_(stage.parameter(0, "query"));
    }
  }
  MrlaStage<MrlaBase> stage;
  std::vector<at::Tensor> maps;
};

TEST(MrlaForms, SoftmaxIsARecurrenceForAStationaryQuery) {
  StationaryStage stationary;
  auto& stage = stationary.stage;
  const auto retrieved = stage.retrieve(stationary.maps);
  const LayerHistory& history = *stage.history;
  for (std::size_t t = 1; t < 4; ++t) {
    const at::Tensor row = stage.record.retrievals[t].log_row,
                     before = stage.record.retrievals[t - 1].log_row;
    const auto last = static_cast<std::int64_t>(t);
    const at::Tensor p = row.select(2, last).exp();
    const at::Tensor spread = spread_heads(p, retrieved[t]);
    const at::Tensor recurrence = (1 - spread) * retrieved[t - 1] + spread * history.values[t].map;
    EXPECT_LT(largest_difference(retrieved[t], recurrence), 1e-14);
    // Rows agree on what they share, so their divergence is that of the new entry alone.
    const at::Tensor shared = row.narrow(2, 0, last) - at::log1p(-p).unsqueeze(2);
    EXPECT_LT(largest_difference(shared, before), 1e-13);
    const at::Tensor divergence = (before.exp() * (before - row.narrow(2, 0, last))).sum(2);
    EXPECT_LT(largest_difference(divergence, -at::log1p(-p)), 1e-13);
  }
}

// With the softmax left away and queries q_t = c_t q_{t-1}, the sum over all blocks is
// c_t O_{t-1} + (q_t k_t) v_t.
TEST(MrlaForms, LinearAttentionIsTheGatedRecurrence) {
  const auto values = wavy_maps(4, 2, 8, 3), keys = wavy_maps(4, 2, 8, 1);
  at::Tensor query = wavy_maps(1, 2, 8, 1)[0].view({2, 2, 4}), before;
  for (std::int64_t t = 0; t < 4; ++t) {
    const at::Tensor c = at::arange(4, at::kDouble).view({2, 2}).add(t + 1).cos();
    if (t > 0) query = query * c.unsqueeze(2);
    std::vector<at::Tensor> weights;
    for (std::int64_t i = 0; i <= t; ++i) {
      weights.push_back((query * keys[static_cast<std::size_t>(i)].view({2, 2, 4})).sum(2));
    }
    std::vector<SharedMap> so_far;
    for (std::int64_t i = 0; i <= t; ++i) so_far.push_back({values[static_cast<std::size_t>(i)]});
    const at::Tensor all = weighted_sum(at::stack(weights, 2), so_far, ForwardState());
    if (t > 0) {
      const at::Tensor& value = values[static_cast<std::size_t>(t)];
      const at::Tensor gated = value * spread_heads(weights.back(), value);
      EXPECT_LT(largest_difference(all, at::addcmul(gated, before, spread_heads(c, before))),
                1e-13);
    }
    before = all;
  }
}

TEST(SkipMode, RecurIsExactForAStationaryQuery) {
  StationaryStage stationary;
  auto& stage = stationary.stage;
  const auto full = stage.retrieve(stationary.maps);
  // After the first block, and after a run of skips.
  for (const std::vector<int>& skipped : {std::vector<int>{1, 2}, {2}, {1, 3}, {1, 2, 3}}) {
    for (int i = 1; i < 4; ++i) {
      const bool skips = std::ranges::find(skipped, i) != skipped.end();
      stage.modules[static_cast<std::size_t>(i)]->set_skip(skips ? SkipMode::Recur
                                                                 : SkipMode::None);
    }
    const auto recurred = stage.retrieve(stationary.maps);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_LT(largest_difference(full[i], recurred[i]), 1e-14);
  }
}

// The last key points away from the query so far that its weight is 0, and the queries are equal.
TEST(SkipMode, ReuseIsExactWhenRowsDoNotDiverge) {
  StationaryStage stationary;
  auto& stage = stationary.stage;
  {
    const at::NoGradGuard no_grad;
    for (at::Tensor& map : stationary.maps) map += 5.0;
    stage.set("query", at::ones({1}, at::kDouble));
    stage.parameter(2, "key").fill_(-1000.0);
  }
  const auto full = stage.retrieve(stationary.maps);
  const at::Tensor row = stage.record.retrievals[2].log_row.exp();
  ASSERT_EQ(row.select(2, 2).abs().max().item<double>(), 0.0);
  stage.modules[2]->set_skip(SkipMode::Reuse);
  const auto reused = stage.retrieve(stationary.maps);
  EXPECT_LT(largest_difference(full[2], reused[2]), 1e-14);
  EXPECT_TRUE(at::equal(reused[2], reused[1]));
}

// |O_t - O_{t-1}| <= sqrt(2 D) max_i |v_i| in each head (Pinsker's inequality).
TEST(SkipMode, ReuseIsOffByNoMoreThanTheDivergenceAllows) {
  MrlaStage<MrlaBase> stage(4, 8, 4);
  const auto retrieved = stage.retrieve(wavy_maps(4, 3, 8, 5));
  const auto head_norms = [](const at::Tensor& map) {
    return map.view({3, 2, -1}).norm(2, at::IntArrayRef{2});
  };
  for (std::size_t t = 1; t < 4; ++t) {
    const at::Tensor row = stage.record.retrievals[t].log_row,
                     before = stage.record.retrievals[t - 1].log_row;
    const at::Tensor shared = row.narrow(2, 0, static_cast<std::int64_t>(t));
    const at::Tensor divergence = (before.exp() * (before - shared)).sum(2);
    at::Tensor largest = at::zeros({3, 2}, at::kDouble);
    for (std::size_t i = 0; i <= t; ++i) {
      largest = at::maximum(largest, head_norms(stage.history->values[i].map));
    }
    const at::Tensor change = head_norms(retrieved[t] - retrieved[t - 1]);
    EXPECT_TRUE((change <= (2 * divergence).sqrt() * largest + 1e-12).all().item<bool>());
  }
}

}  // namespace
}  // namespace ablate
