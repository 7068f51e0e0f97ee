#include <algorithm>
#include <cmath>

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

/// Reduces x (B, N, C) by given attention of the class token (B, N).
at::Tensor reorganize(const Value::Table& settings, const at::Tensor& x,
                      const at::Tensor& attention, std::int64_t front = 1) {
  const auto reducer = test::make_token_reducer("evit", settings);
  ForwardState state;
  state.protected_tokens = front;
  state.class_attention = attention;
  return reducer->forward({x}, state).base;
}

at::Tensor tokens_of(std::int64_t batch, std::int64_t tokens) {
  return at::arange(batch * tokens * 4, at::kDouble).mul(0.9).sin().view({batch, tokens, 4});
}

TEST(EVit, KeepsTheMostAttendedAndFusesTheOthersByTheirAttention) {
  const at::Tensor x = tokens_of(1, 6);
  const at::Tensor attention =
      at::tensor({0.3, 0.05, 0.25, 0.02, 0.2, 0.18}, at::kDouble).view({1, 6});
  // ceil(0.6 * 5) = 3 stay, by falling attention.
  const at::Tensor fused = x[0][1] * 0.05 + x[0][3] * 0.02;
  const at::Tensor expected = at::stack({x[0][0], x[0][2], x[0][4], x[0][5], fused});
  EXPECT_LT(test::largest_difference(reorganize({{"keep", 0.6}}, x, attention)[0], expected),
            1e-15);
  EXPECT_TRUE(at::equal(reorganize({{"keep", 0.6}, {"fuse_token", false}}, x, attention)[0],
                        expected.narrow(0, 0, 4)));
  // With a distillation token in front as well.
  const at::Tensor kept = reorganize({{"keep", 0.5}, {"fuse_token", false}}, x, attention, 2)[0];
  EXPECT_TRUE(at::equal(kept, at::stack({x[0][0], x[0][1], x[0][2], x[0][4]})));
}

// Nothing is won by fusing a single token.
TEST(EVit, LeavesSequencesAloneThatWouldNotGetShorter) {
  const at::Tensor x = tokens_of(1, 6);
  const at::Tensor attention = at::full({1, 6}, 1.0 / 6, at::kDouble);
  EXPECT_TRUE(at::equal(reorganize({{"keep", 0.8}}, x, attention), x));
  EXPECT_EQ(reorganize({{"keep", 0.8}, {"fuse_token", false}}, x, attention).size(1), 5);
}

TEST(EVit, SendsGradientsToTokensAndAttention) {
  const at::Tensor x = tokens_of(2, 6).requires_grad_();
  const at::Tensor attention = at::softmax(tokens_of(2, 6).sum(2), 1).requires_grad_();
  const at::Tensor y = reorganize({{"keep", 0.4}}, x, attention);
  const at::Tensor upstream = at::arange(y.numel(), at::kDouble).cos().view_as(y);
  (y * upstream).sum().backward();
  // A fused token passes on its gradient by weight, and says how much a weight would move it.
  for (std::int64_t sample = 0; sample < 2; ++sample) {
    std::vector<std::pair<double, std::int64_t>> order;
    for (std::int64_t i = 1; i < 6; ++i) order.emplace_back(attention[sample][i].item<double>(), i);
    std::ranges::sort(order, std::greater());
    for (std::size_t rank = 2; rank < 5; ++rank) {
      const auto [weight, token] = order[rank];
      EXPECT_TRUE(at::allclose(x.grad()[sample][token], upstream[sample][3] * weight));
      EXPECT_NEAR(attention.grad()[sample][token].item<double>(),
                  (upstream[sample][3] * x[sample][token]).sum().item<double>(), 1e-14);
    }
    EXPECT_EQ(attention.grad()[sample][order[0].second].item<double>(), 0.0);
  }
}

TEST(EVit, FollowsTheAttentionOfItsOwnBlock) {
  const auto model = test::textured_vit();
  MethodContext context(*model);
  apply_method(context, "name = 'evit'\nblocks = [1]\nfuse_token = false\nkeep = 0.5");
  model->eval();
  const at::NoGradGuard no_grad;
  const at::Tensor images = test::wavy_images(2, 16, at::kDouble);
  ForwardState state;
  for (const char* tap : {"blocks.0", "blocks.1.attn"}) state.taps[tap];
  model->forward(images, state);
  // The row of the class token, from the definition.
  const auto parameters = model->named_parameters();
  const auto of = [&](const char* name) { return parameters[cat("blocks.1.", name)]; };
  const at::Tensor x = state.taps["blocks.0"];
  const at::Tensor qkv =
      at::linear(at::layer_norm(x, {16}, of("norm1.weight"), of("norm1.bias"), 1e-6),
                 of("attn.qkv.weight"), of("attn.qkv.bias"))
          .view({2, 17, 3, 2, 8});
  const at::Tensor row =
      at::softmax(at::einsum("bhd,bnhd->bhn", {qkv.select(2, 0).select(1, 0), qkv.select(2, 1)}) /
                      std::sqrt(8.0),
                  -1)
          .mean(1);
  const at::Tensor kept = std::get<1>(row.narrow(1, 1, 16).topk(8)) + 1;
  const at::Tensor mixed = x + state.taps["blocks.1.attn"];
  for (std::int64_t sample = 0; sample < 2; ++sample) {
    const at::Tensor expected = mixed[sample].index_select(0, kept[sample]);
    ForwardState again;
    again.taps["blocks.1"];
    again.taps["blocks.1.mlp"];
    model->forward(images, again);
    const at::Tensor behind = again.taps["blocks.1"] - again.taps["blocks.1.mlp"];
    EXPECT_LT(test::largest_difference(behind[sample].narrow(0, 1, 8), expected), 1e-12);
    EXPECT_LT(test::largest_difference(behind[sample][0], mixed[sample][0]), 1e-12);
  }
}

/// The published GMACs of DeiT-S by keep rate (Liang et al., ICLR 2022, table 1 and 2), and the
/// token counts that follow from ceil(keep (N - 1)) and the fused token.
TEST(EVit, LeavesThePublishedCosts) {
  struct Row {
    double keep, gmacs;
    Counts tokens;
  };
  const Row rows[] = {
      {0.9, 4.0, {197, 197, 197, 179, 179, 179, 163, 163, 163, 148, 148, 148}},
      {0.8, 3.5, {197, 197, 197, 159, 159, 159, 129, 129, 129, 105, 105, 105}},
      {0.7, 3.0, {197, 197, 197, 140, 140, 140, 100, 100, 100, 72, 72, 72}},
      {0.6, 2.6, {197, 197, 197, 120, 120, 120, 74, 74, 74, 46, 46, 46}},
      {0.5, 2.3, {197, 197, 197, 100, 100, 100, 52, 52, 52, 28, 28, 28}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.keep);
    const auto model = test::narrow_deit();
    MethodContext context(*model);
    apply_method(context, cat("name = 'evit'\nkeep = ", row.keep));
    EXPECT_EQ(test::reducing_blocks(context), (std::vector<int>{3, 6, 9}));
    EXPECT_EQ(test::token_counts(*model), row.tokens);
    EXPECT_EQ(measure_cost(*model).macs,
              test::deit_macs(8, 10, test::shifted(row.tokens), row.tokens));
    EXPECT_NEAR(
        static_cast<double>(test::deit_macs(384, 1000, test::shifted(row.tokens), row.tokens)) /
            1e9,
        row.gmacs, 0.05);
  }
}

// Who was fused is found in the fused token, whoever was kept at its new place.
TEST(EVit, LetsSourcesBeFollowedIntoTheFusedToken) {
  const at::Tensor x = tokens_of(1, 6);
  ForwardState state;
  state.protected_tokens = 1;
  state.track_sources = true;
  state.class_attention = at::tensor({0.3, 0.05, 0.25, 0.02, 0.2, 0.18}, at::kDouble).view({1, 6});
  test::make_token_reducer("evit", {{"keep", 0.6}})->forward({x}, state);
  EXPECT_TRUE(at::equal(state.sources[0], at::tensor({0, 4, 1, 4, 2, 3}, at::kLong)));
  // Once more: of 5 tokens, the fused one included, half of 4 stay.
  state.class_attention = at::tensor({0.4, 0.1, 0.3, 0.05, 0.15}, at::kDouble).view({1, 5});
  test::make_token_reducer("evit", {{"keep", 0.5}})->forward({x.narrow(1, 0, 5)}, state);
  EXPECT_TRUE(at::equal(state.sources[0], at::tensor({0, 2, 3, 2, 1, 3}, at::kLong)));
  const auto dropping = test::make_token_reducer("evit", {{"keep", 0.4}, {"fuse_token", false}});
  state.class_attention = at::full({1, 5}, 0.2, at::kDouble);
  EXPECT_THROW(dropping->forward({x.narrow(1, 0, 5)}, state), Error);
}

TEST(EVit, MovesStagesToBlocksThatHaveAttention) {
  const auto model = test::narrow_deit();
  MethodContext context(*model);
  for (const int block : {3, 4, 6}) test::remove_attention(context, block);
  context.surgeon().apply(MarkRetiring{9});
  apply_method(context, "name = 'evit'");
  EXPECT_EQ(test::reducing_blocks(context), (std::vector<int>{5, 7, 10}));
}

TEST(EVit, GuardsTheAttentionThatItNeeds) {
  const auto model = test::textured_vit();
  MethodContext context(*model);
  apply_method(context, "name = 'evit'\nblocks = [1]");
  const auto refusal = [&](const Edit& edit) {
    return test::message_of<Error>([&] { context.surgeon().apply(edit); });
  };
  EXPECT_NE(refusal(RemoveMixer{1}).find("needs the class token's row"), std::string::npos);
  EXPECT_NE(refusal(MarkRetiring{1}).find("needs the class token's row"), std::string::npos);
  context.surgeon().apply(SetGains{2, 2, 0});
  context.surgeon().apply(RemoveMixer{2});
  const Value::Table keep{{"keep", 0.5}};
  EXPECT_NE(refusal(InsertReducer{2, "evit", keep}).find("attention of the class token"),
            std::string::npos);
}

TEST(EVit, RefusesWhatItCannotDo) {
  const auto refusal = [](const std::string& settings, int removed) {
    const auto model = test::textured_vit();
    MethodContext context(*model);
    for (int block = 3 - removed; block < 3; ++block) test::remove_attention(context, block);
    return test::message_of<SpecError>(
        [&] { apply_method(context, "name = 'evit'\n" + settings); });
  };
  EXPECT_NE(refusal("blocks = [3]", 0).find("blocks are 0 to 2"), std::string::npos);
  EXPECT_NE(refusal("blocks = [1, 1]", 0).find("twice"), std::string::npos);
  EXPECT_NE(refusal("blocks = [1, 2]", 1).find("from 2 on"), std::string::npos);
  EXPECT_NE(refusal("keep = 0.95", 0).find("no token goes anywhere"), std::string::npos);
}

}  // namespace
}  // namespace ablate
