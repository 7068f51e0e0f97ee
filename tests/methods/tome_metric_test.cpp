#include <vector>

#include <gtest/gtest.h>

#include "methods/models/attention.h"
#include "methods/models/fold.h"
#include "methods/token_merging.h"
#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/methods/tome_support.h"

// What token merging compares: keys, the tokens before and after norm2, or keys that are carried to
// blocks without attention.

namespace ablate {
namespace {

using test::apply_tome;
using test::Counts;
using test::golden_images;
using test::golden_vit;
using test::message_of;
using test::MethodContext;
using test::recorded_schedule;
using test::remove_attention;

/// A pass over the golden images that keeps where each token went.
ForwardState tracked_pass(Model& model, std::initializer_list<const char*> taps = {}) {
  const at::NoGradGuard no_grad;
  ForwardState state;
  state.track_sources = true;
  for (const char* name : taps) state.taps.try_emplace(name);
  model.forward(golden_images(), state);
  return state;
}

at::Tensor positions_by(const at::Tensor& metric, std::int64_t r) {
  return match_tokens(metric, r, 1).positions;
}

/// Head means of the keys of one block of golden_vit for the stream that enters it.
at::Tensor mean_keys(Model& model, int block, const at::Tensor& stream) {
  const auto parameters = model.named_parameters();
  const std::string name = cat("blocks.", block, ".attn.qkv.");
  const at::Tensor normed =
      model.blocks()[static_cast<std::size_t>(block)]->norm1()->forward(stream);
  const at::Tensor keys = at::linear(normed, parameters[name + "weight"].narrow(0, 12, 12),
                                     parameters[name + "bias"].narrow(0, 12, 12));
  return keys.view({stream.size(0), stream.size(1), 2, 6}).mean(2);
}

TEST(ToMeMetric, ComparesWhatItIsAskedTo) {
  std::vector<at::Tensor> found;
  for (const char* metric : {"keys", "features", "norm_features"}) {
    const auto model = golden_vit();
    MethodContext context(*model);
    apply_tome(context, cat("schedule = [0, 3]\nmetric = '", metric, "'"));
    const ForwardState state = tracked_pass(*model, {"blocks.0", "blocks.1.attn"});
    found.push_back(state.sources);
    // The stream between attention and MLP of block 1, whose tokens are merged.
    const Block& block = *model->blocks()[1];
    const at::Tensor stream = state.taps.at("blocks.0"),
                     mixed = stream + state.taps.at("blocks.1.attn");
    const std::string name = metric;
    at::Tensor expected = mixed;
    if (name == "norm_features") expected = block.norm2().forward(mixed);
    if (name == "keys") expected = mean_keys(*model, 1, stream);
    EXPECT_TRUE(at::equal(state.sources, positions_by(expected, 3))) << metric;
  }
  EXPECT_FALSE(at::equal(found[0], found[1]));
  EXPECT_FALSE(at::equal(found[1], found[2])) << "norm2 must matter";
}

TEST(ToMeMetric, CarriesKeysToBlocksWithoutAttention) {
  const auto model = golden_vit();
  MethodContext context(*model);
  remove_attention(context, 1);
  remove_attention(context, 2);
  apply_tome(context, "schedule = [3, 2, 4]\nwithout_attention = 'cached_keys'");
  const ForwardState state = tracked_pass(*model, {"patch_embed"});
  ASSERT_EQ(state.token_sizes.size(1), 17 - 9);

  const at::NoGradGuard no_grad;
  at::Tensor keys = mean_keys(*model, 0, state.taps.at("patch_embed")), sizes, sources;
  for (const std::int64_t r : {3, 2, 4}) {
    const MergePlan plan = match_tokens(keys, r, 1);
    const at::Tensor positions = plan.positions;
    sources = sources.defined() ? positions.gather(1, sources) : positions;
    std::tie(keys, sizes) = merge_weighted(plan, keys, sizes);
  }
  EXPECT_TRUE(at::equal(state.sources, sources));
  EXPECT_TRUE(at::equal(state.token_sizes, sizes));
  EXPECT_TRUE(at::allclose(state.carried_keys, keys, 0, 1e-12));
}

// Keys come from blocks that do not merge, too, and the nearest attention gives them.
TEST(ToMeMetric, CarriesTheKeysOfTheNearestAttention) {
  const auto model = golden_vit();
  MethodContext context(*model);
  remove_attention(context, 2);
  apply_tome(context, "schedule = [0, 0, 4]\nwithout_attention = 'cached_keys'");
  const ForwardState state = tracked_pass(*model, {"blocks.0"});
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(
      at::equal(state.sources, positions_by(mean_keys(*model, 1, state.taps.at("blocks.0")), 4)));
}

TEST(ToMeMetric, MergesWhereItHasSomethingToCompare) {
  struct Row {
    std::vector<int> removed;
    const char* settings;
    Counts schedule;
  };
  const Row rows[] = {
      {{1}, "without_attention = 'norm_features'", {2, 2, 2}},
      {{1}, "without_attention = 'cached_keys'", {2, 2, 2}},
      {{0}, "without_attention = 'cached_keys'", {0, 2, 2}},
      {{0}, "without_attention = 'features'", {2, 2, 2}},
      {{0, 1}, "without_attention = 'cached_keys'\nstart = 1", {0, 0, 0}},
      {{0, 2}, "without_attention = 'cached_keys'\nstart = 1", {0, 0, 2}},
      {{0, 2}, "without_attention = 'cached_keys'\nmetric = 'features'", {0, 2, 2}},
  };
  for (const Row& row : rows) {
    const auto model = golden_vit();
    MethodContext context(*model);
    for (const int block : row.removed) remove_attention(context, block);
    const std::string settings = cat("r = 2\n", row.settings);
    if (row.schedule == Counts{0, 0, 0}) {
      EXPECT_THROW(apply_tome(context, settings), Error) << row.settings;
    } else {
      apply_tome(context, settings);
    }
    EXPECT_EQ(recorded_schedule(context), row.schedule) << row.settings;
  }
}

// Whatever is compared, no token moves at the moment when diluted attention is removed, and the
// recorded edits make the same model again.
TEST(ToMeMetric, IsUntouchedByTheRemovalOfDilutedAttention) {
  for (const char* metric : {"skip", "features", "norm_features", "cached_keys"}) {
    SCOPED_TRACE(metric);
    const auto model = golden_vit();
    MethodContext context(*model);
    context.length = 2;
    MethodStack stack(
        {test::method_component("name = 'nose'\nlayers = [1, 2]"),
         test::method_component(cat("name = 'tome'\nr = 3\nwithout_attention = '", metric, "'"))});
    stack.apply(context);
    for (const int block : {1, 2}) context.surgeon().apply(SetGains{block, 2, 0});
    const ForwardState before = tracked_pass(*model);
    context.now = 1;
    for (const int block : {1, 2}) context.surgeon().apply(SetGains{block, 1.5, 0.5});
    stack.between_steps(context);
    EXPECT_TRUE(stack.settled());
    EXPECT_EQ(model->blocks()[1]->mixer(), nullptr);
    EXPECT_TRUE(at::equal(tracked_pass(*model).sources, before.sources));
    EXPECT_EQ(before.token_sizes.size(1), std::string(metric) == "skip" ? 14 : 17 - 3 - 3 - 3);

    const auto again = golden_vit();
    Surgeon replayed(*again);
    for (const Edit& edit : context.surgeon().edits()) replayed.apply(edit);
    EXPECT_EQ(replayed.edits(), context.surgeon().edits());
    EXPECT_TRUE(at::equal(tracked_pass(*again).sources, before.sources));
  }
}

TEST(ToMeMetric, KeepsTheAttentionWhoseKeysAreCarried) {
  const auto model = golden_vit();
  MethodContext context(*model);
  Surgeon& surgeon = context.surgeon();
  remove_attention(context, 2);
  apply_tome(context, "schedule = [0, 0, 4]\nwithout_attention = 'cached_keys'");
  const auto refusal = [&](const Edit& edit) {
    return message_of<Error>([&] { surgeon.apply(edit); });
  };
  EXPECT_NE(refusal(MarkRetiring{1}).find("block 2 needs the keys of this attention"),
            std::string::npos);
  EXPECT_NO_THROW(surgeon.apply(MarkRetiring{0})) << "block 1 is nearer";
  EXPECT_NE(refusal(RemoveMixer{1}).find("block 2 needs the keys of this attention"),
            std::string::npos);

  const auto bare = golden_vit();
  Surgeon other(*bare);
  other.apply(RemoveMixer{0});
  const Value params = parse_toml("r = 2\nmetric = 'cached_keys'", "test");
  EXPECT_NE(message_of<Error>([&] {
              other.apply(InsertReducer{0, "tome", params});
            }).find("no attention up to this block"),
            std::string::npos);
}

// The doubling-free form divides stream and eps alike, so every metric sees the same bits.
TEST(ToMeMetric, IsTheSameInTheDoublingFreeForm) {
  for (const char* metric : {"skip", "features", "norm_features", "cached_keys"}) {
    const auto model = golden_vit();
    MethodContext context(*model);
    remove_attention(context, 1);
    apply_tome(context, cat("r = 3\nwithout_attention = '", metric, "'"));
    const at::Tensor doubled = test::logits_of(*model, golden_images());
    EXPECT_EQ(fold_doublings(*model).scale, 2.0);
    EXPECT_TRUE(at::equal(test::logits_of(*model, golden_images()), doubled)) << metric;
  }
}

// D9: training and evaluation in single and half precision.
TEST(ToMeMetric, WorksInHalfPrecision) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const char* metric : {"skip", "features", "norm_features", "cached_keys"}) {
      SCOPED_TRACE(metric);
      const auto model = test::make_model(
          "vit", "image_size = 16\nembed_dim = 16\nnum_heads = 2\ndepth = 3\ndrop_path = 0.2");
      model->initialize(1);
      MethodContext context(*model);
      remove_attention(context, 1);
      apply_tome(context, cat("r = 3\nwithout_attention = '", metric, "'"));
      model->to(type);
      const at::Tensor images = test::wavy_images(4, 16, type);
      model->eval();
      EXPECT_TRUE(test::logits_of(*model, images).isfinite().all().item<bool>());
      model->train();
      ForwardState state;
      model->forward(images, state).to(at::kFloat).square().sum().backward();
      EXPECT_EQ(state.token_sizes.scalar_type(), at::kFloat) << "sizes stay exact";
      for (const auto& item : model->named_parameters()) {
        ASSERT_TRUE(item.value().grad().defined()) << item.key();
        EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
      }
    }
  }
}

// A10: copied back, the tokens stand on the patch grid again.
TEST(ToMeMetric, UnmergedTokensStandOnTheGrid) {
  const auto model = golden_vit();
  MethodContext context(*model);
  apply_tome(context, "r = 3");
  const ForwardState state = tracked_pass(*model, {"blocks.2"});
  const at::Tensor merged = state.taps.at("blocks.2");
  const at::Tensor full = unmerge(merged, state.sources);
  ASSERT_EQ(full.sizes(), (std::vector<std::int64_t>{2, 17, 12}));
  EXPECT_EQ(full.narrow(1, 1, 16).transpose(1, 2).reshape({2, 12, 4, 4}).numel(), 2 * 12 * 16);
  for (std::int64_t sample = 0; sample < 2; ++sample) {
    for (std::int64_t token = 0; token < 17; ++token) {
      const auto holder = state.sources[sample][token].item<std::int64_t>();
      EXPECT_TRUE(at::equal(full[sample][token], merged[sample][holder]));
    }
    // As many copies of each merged token as its size says.
    const at::Tensor copies = at::bincount(state.sources[sample], {}, merged.size(1));
    EXPECT_TRUE(at::equal(copies.to(at::kDouble), state.token_sizes[sample].flatten()));
  }
}

}  // namespace
}  // namespace ablate
