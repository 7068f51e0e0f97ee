#include <gtest/gtest.h>

#include "methods/models/channel_gates.h"
#include "runner/train/ema.h"
#include "runner/train/optimizer.h"
#include "tests/models/channel_support.h"

// What follows parameters, follows them through a cut.

namespace ablate {
namespace {

using test::some_channels;

constexpr const char* kVit =
    "image_size = 16\npatch_size = 4\nembed_dim = 24\ndepth = 2\nnum_heads = 3";

std::unique_ptr<Optimizer> adamw() {
  const Value settings;
  Params params(settings, "optimizer");
  return Registry<OptimizerInfo>::get("adamw").make(params);
}

void step(Model& model, ParameterArena& arena, const Optimizer& optimizer) {
  arena.zero_grad();
  ForwardState state;
  model.forward(test::wavy_images(2, 16), state).square().sum().backward();
  optimizer.step(arena, {.lr = 1e-2, .ema_decay = 0.9});
}

TEST(ChannelCutOfAnArena, SlicesMomentsAndAverageAsTheParameters) {
  const auto model = test::make_model("vit", kVit, 5);
  model->initialize(1);
  Surgeon surgeon(*model);
  ParameterArena arena(*model);
  arena.rebuild(surgeon);
  Ema ema(*model, arena, 0.9);
  const auto optimizer = adamw();
  for (int i = 0; i < 3; ++i) step(*model, arena, *optimizer);
  std::map<std::string, at::Tensor> before;
  arena.for_each([&](const std::string& buffer, const ArenaSegment& segment, at::Tensor view) {
    before[cat(buffer, "/", segment.name)] = view.clone();
  });

  // Two cuts between two looks: both lie on one axis of qkv.
  const auto qk = some_channels(3, 8, 3, 1), v = some_channels(3, 8, 5, 2);
  surgeon.apply(KeepChannels{1, "qk", qk});
  surgeon.apply(KeepChannels{1, "v", v});
  surgeon.apply(KeepChannels{0, "mlp", {1, 5, 90}});
  arena.rebuild(surgeon);
  ema.rebuild(*model);

  std::vector<std::int64_t> rows;
  for (const std::int64_t row : qk) rows.push_back(row);
  for (const std::int64_t row : qk) rows.push_back(24 + row);
  for (const std::int64_t row : v) rows.push_back(48 + row);
  const auto index = [](const std::vector<std::int64_t>& values) {
    return at::tensor(values, at::kLong);
  };
  int buffers = 0;
  arena.for_each([&](const std::string& buffer, const ArenaSegment& segment, at::Tensor view) {
    at::Tensor expected = before.at(cat(buffer, "/", segment.name));
    if (segment.name.starts_with("blocks.1.attn.qkv."))
      expected = expected.index_select(0, index(rows));
    if (segment.name == "blocks.1.attn.proj.weight") expected = expected.index_select(1, index(v));
    if (segment.name.starts_with("blocks.0.mlp.fc1.")) {
      expected = expected.index_select(0, index({1, 5, 90}));
    }
    if (segment.name == "blocks.0.mlp.fc2.weight") {
      expected = expected.index_select(1, index({1, 5, 90}));
    }
    EXPECT_TRUE(at::equal(view, expected)) << buffer << "/" << segment.name;
    if (segment.name == "blocks.1.attn.qkv.weight") ++buffers;
  });
  EXPECT_EQ(buffers, 4) << "values, two moments, average";
  EXPECT_NO_THROW(step(*model, arena, *optimizer));
}

TEST(ChannelCutOfAnArena, GivesScoresTheirOwnTreatment) {
  const auto model = test::make_model("vit", kVit, 5);
  model->initialize(1);
  Surgeon surgeon(*model);
  ParameterArena arena(*model);
  surgeon.apply(AttachGates{{{{{0, "v"}}}}, Value::Table{{"lr_factor", 20.0}}});
  arena.rebuild(surgeon);
  const SegmentSettings& settings = arena.segment("channel_gates.scores_0").settings;
  EXPECT_EQ(settings.lr_factor, 20.0);
  EXPECT_EQ(settings.decay_factor, 0.0);
  EXPECT_EQ(settings.clamp_low, 0.0);
  EXPECT_EQ(settings.clamp_high, 2.0);
  EXPECT_EQ(arena.segment("head.weight").settings.lr_factor, 1.0);
}

}  // namespace
}  // namespace ablate
