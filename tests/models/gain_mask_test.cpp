#include "methods/models/gain_mask.h"

#include <cmath>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "methods/models/drop_path.h"
#include "methods/models/edit.h"
#include "methods/models/model.h"
#include "methods/models/random_numbers.h"
#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/models.h"

// Residual gains that are drawn.

namespace ablate {
namespace {

constexpr double kLambda = 0.3;

at::Tensor probability() { return at::full({}, kLambda, at::kDouble); }

std::shared_ptr<Model> one_block(const std::string& more = "") {
  auto model = test::make_model(
      "vit", "depth = 1\nembed_dim = 8\nnum_heads = 2\nimage_size = 8\npatch_size = 2\n" + more);
  model->to(at::kDouble);
  model->initialize(2);
  model->train();
  return model;
}

at::Tensor tokens_for(std::int64_t batch) {
  return at::arange(batch * 17 * 8, at::kDouble).mul(0.37).sin().view({batch, 17, 8});
}

ForwardState pass_state() {
  ForwardState state;
  state.seed = 6;
  state.step = 2;
  return state;
}

/// The stream behind the attention of a block: the branch of its MLP is pending.
at::Tensor mixed(Block& block, const at::Tensor& x, ForwardState state) {
  const at::NoGradGuard no_grad;
  return block.forward({x}, state).base;
}

TEST(GainMask, MixesDenseAndShrunkJoinsPlaceByPlace) {
  const at::Tensor x = tokens_for(3);
  for (const double compensation : {1.0, 0.0}) {
    for (const GainMask mask :
         {GainMask::Element, GainMask::Token, GainMask::Channel, GainMask::Sample}) {
      SCOPED_TRACE(cat(mask_name(mask), ", compensation ", compensation));
      const auto model = one_block();
      Block& block = *model->blocks()[0];
      const at::Tensor dense = mixed(block, x, pass_state());
      Surgeon(*model).apply(SetGains{0, 1.0 + compensation * (1.0 - kLambda), kLambda, mask});
      const at::Tensor drawn =
          draw_mask(mask, probability(), x, "blocks.0.attn.mask", pass_state());
      const at::Tensor expected = drawn * dense + (1 - drawn) * (1.0 + compensation) * x;
      EXPECT_LT(test::largest_difference(mixed(block, x, pass_state()), expected), 1e-12);
      EXPECT_GT(drawn.sum().item<double>(), 0.0);
      EXPECT_LT(drawn.mean().item<double>(), 1.0);
    }
  }
}

TEST(GainMask, UsesTheMeanInEvaluation) {
  const auto model = one_block();
  model->eval();
  Block& block = *model->blocks()[0];
  const at::Tensor x = tokens_for(3);
  Surgeon surgeon(*model);
  surgeon.apply(SetGains{0, 1.7, kLambda});
  const at::Tensor mean = mixed(block, x, pass_state());
  surgeon.apply(SetGains{0, 1.7, kLambda, GainMask::Element});
  EXPECT_TRUE(at::equal(mixed(block, x, pass_state()), mean));
}

// Over many samples of one image.
TEST(GainMask, HasTheMeanOfItsGains) {
  constexpr std::int64_t kBatch = 4000;
  const auto model = one_block();
  Block& block = *model->blocks()[0];
  const at::Tensor x = tokens_for(1).expand({kBatch, 17, 8}).contiguous();
  Surgeon surgeon(*model);
  surgeon.apply(SetGains{0, 1.7, kLambda});
  const at::Tensor mean = mixed(block, x, pass_state())[0];
  surgeon.apply(SetGains{0, 1.7, kLambda, GainMask::Sample});
  const at::Tensor drawn = mixed(block, x, pass_state());
  const at::Tensor sigma = drawn.std(0) / std::sqrt(static_cast<double>(kBatch));
  EXPECT_TRUE(((drawn.mean(0) - mean).abs() <= 5 * sigma + 1e-12).all().item<bool>());
}

TEST(GainMask, DropPathTakesTheBranchOutOfTheJoinThatIsDrawn) {
  const auto model = one_block("drop_path = 0.6\ndrop_path_mode = 'constant'");
  Block& block = *model->blocks()[0];
  const at::Tensor x = tokens_for(40);
  const at::Tensor dense = mixed(block, x, pass_state());  // with drop-path of this step
  Surgeon(*model).apply(SetGains{0, 1.7, kLambda, GainMask::Token});
  const at::Tensor drawn =
      draw_mask(GainMask::Token, probability(), x, "blocks.0.attn.mask", pass_state());
  const at::Tensor expected = drawn * dense + (1 - drawn) * 2.0 * x;
  EXPECT_LT(test::largest_difference(mixed(block, x, pass_state()), expected), 1e-12);
}

// As captured steps have them: numbers of the device take the place of the block's own.
TEST(GainMask, FollowsNumbersThatWereComputedAhead) {
  const auto model = one_block("drop_path = 0.6\ndrop_path_mode = 'constant'");
  Block& block = *model->blocks()[0];
  const at::Tensor x = tokens_for(6);
  Surgeon surgeon(*model);
  surgeon.apply(SetGains{0, 1.4, 0.6, GainMask::Element});
  const at::Tensor expected = mixed(block, x, pass_state());

  const at::Tensor kept = drop_path_scale("blocks.0.attn", 0.6, 1.0, 6, x.options(), pass_state());
  surgeon.apply(SetGains{0, 1.7, kLambda, GainMask::Element});  // what the capture saw
  ForwardState state = pass_state();
  state.join_numbers["blocks.0.attn"] = {.scale = kept * 0.6,
                                         .skip = at::full({1, 1, 1}, 1.4, at::kDouble),
                                         .branch = at::full({}, 0.6, at::kDouble)};
  EXPECT_LT(test::largest_difference(mixed(block, x, state), expected), 1e-12);
}

TEST(GainMask, IsAPartOfTheStructure) {
  const auto model = one_block();
  Surgeon surgeon(*model);
  const SetGains edit{0, 1.7, kLambda, GainMask::Channel};
  surgeon.apply(edit);
  const std::int64_t generation = surgeon.generation();
  const nlohmann::json json = to_json(edit);
  EXPECT_EQ(json.at("mask"), "channel");
  EXPECT_EQ(edit_from_json(nlohmann::json::parse(json.dump())), Edit(edit));
  EXPECT_FALSE(to_json(SetGains{0, 1.7, kLambda}).contains("mask"));
  EXPECT_NE(describe(edit).find("drawn by channel"), std::string::npos);
  // Captured steps follow the probability, but not what they do without the branch.
  surgeon.apply(SetGains{0, 1.8, 0.2, GainMask::Channel});
  EXPECT_EQ(surgeon.generation(), generation);
  surgeon.apply(SetGains{0, 1.0, 0.2, GainMask::Channel});
  EXPECT_GT(surgeon.generation(), generation);
  const std::int64_t skipping = surgeon.generation();
  surgeon.apply(SetGains{0, 1.0, 0.2, GainMask::Token});
  EXPECT_GT(surgeon.generation(), skipping);
  EXPECT_EQ(surgeon.edits().size(), 1U);
  for (const double branch : {0.0, 1.0}) {
    const std::string refusal = test::message_of<Error>([&] {
      surgeon.apply(SetGains{0, 2.0, branch, GainMask::Token});
    });
    EXPECT_NE(refusal.find("between 0 and 1"), std::string::npos) << refusal;
  }
}

}  // namespace
}  // namespace ablate
