#include <gtest/gtest.h>

#include "methods/models/cross_window_attention.h"
#include "methods/models/focused_attention.h"
#include "methods/models/spatial_reduction.h"
#include "methods/models/window_attention.h"
#include "runner/measure/mac_counter.h"
#include "tests/support/models.h"

// Channel groups of the token mixers of hierarchical transformers: what is masked and what is cut
// compute the same, and channels cost what operations say.

namespace ablate {
namespace {

constexpr std::int64_t kDim = 24, kHeads = 4, kWidth = kDim / kHeads;

struct MixerCase {
  std::string name;
  std::int64_t tokens;
  std::function<std::shared_ptr<TokenMixer>()> make;
  /// Multiply-accumulates of a pass over two images that no channel can save.
  std::int64_t fixed_macs = 0;
};

std::shared_ptr<TokenMixer> make_focused(std::int64_t prefix, bool local) {
  return std::make_shared<FocusedLinearAttention>(
      FocusedAttentionOptions{.dim = kDim,
                              .num_heads = kHeads,
                              .map_side = 6,
                              .prefix_tokens = prefix,
                              .window = prefix == 0 ? 3 : 0,
                              .local_encoding = local});
}

const std::vector<MixerCase>& mixer_cases() {
  static const std::vector<MixerCase> all{
      {"linear", 36, [] { return make_focused(0, false); }},
      {"linear_class_token", 37, [] { return make_focused(1, false); }},
      {"linear_local_encoding", 36, [] { return make_focused(0, true); }},
      {"shifted_windows", 36,
       [] {
         return std::make_shared<WindowAttention>(WindowAttentionOptions{kDim, kHeads, 6, 3, 1});
       }},
      {"spatial_reduction", 36,
       [] { return std::make_shared<SpatialReductionAttention>(kDim, kHeads, 2); },
       2 * 36 * kDim * kDim},
      {"stripes", 36, [] { return std::make_shared<CrossWindowAttention>(kDim, kHeads, 6, 2); }},
      {"one_stripe", 36, [] { return std::make_shared<CrossWindowAttention>(kDim, kHeads, 6, 6); }},
  };
  return all;
}

class MixerChannels : public testing::TestWithParam<MixerCase> {
 protected:
  static at::Tensor values(at::IntArrayRef sizes, double seed) {
    std::int64_t count = 1;
    for (const std::int64_t size : sizes) count *= size;
    const at::Tensor k = at::arange(count, at::kDouble);
    return ((12.9898 * k + seed).sin() * 43758.5453).frac().view(sizes);
  }
  static std::shared_ptr<TokenMixer> mixer() {
    const auto made = GetParam().make();
    const at::NoGradGuard no_grad;
    double seed = 1;
    for (at::Tensor& parameter : made->parameters()) {
      parameter.copy_(0.5 * values(parameter.sizes(), seed++));
    }
    made->to(at::kDouble);
    return made;
  }
  static at::Tensor input() { return values({2, GetParam().tokens, kDim}, 99); }

  /// As many channels of each head, other ones in each: of `width`, all but head % width and, when
  /// two go, the one after it.
  static std::vector<std::int64_t> kept_channels(const ChannelGroup& group, std::int64_t removed) {
    std::vector<std::int64_t> kept;
    for (std::int64_t c = 0; c < group.channels(); ++c) {
      const std::int64_t head = c / group.width, place = c % group.width;
      const std::int64_t distance = (place - head % group.width + group.width) % group.width;
      if (distance >= removed) kept.push_back(c);
    }
    return kept;
  }
  static std::int64_t removed_of(const ChannelGroup& group) {
    return group.role == ChannelRole::QueryKey ? 2 : 1;
  }
};

TEST_P(MixerChannels, MaskedAndCutComputeTheSame) {
  const at::NoGradGuard no_grad;
  const auto masked = mixer(), cut = mixer();
  ForwardState gates, plain;
  for (ChannelGroup* group : masked->channel_groups()) {
    at::Tensor gate = at::zeros({group->channels()}, at::kDouble);
    for (const std::int64_t c : kept_channels(*group, removed_of(*group))) gate[c] = 1;
    gates.channel_gates[group] = gate;
  }
  const at::Tensor before = cut->forward(input(), plain);
  ParameterSlicer slicer;
  for (ChannelGroup* group : cut->channel_groups()) {
    cut->keep_channels(*group, kept_channels(*group, removed_of(*group)), slicer);
    EXPECT_EQ(group->width, kWidth - removed_of(*group));
    EXPECT_EQ(group->born_width, kWidth);
  }
  const at::Tensor expected = masked->forward(input(), gates), got = cut->forward(input(), plain);
  EXPECT_LT(test::largest_difference(got, expected), 1e-12);
  EXPECT_GT(test::largest_difference(got, before), 1e-3);
  EXPECT_LT(test::parameter_count(*cut), test::parameter_count(*masked));
}

TEST_P(MixerChannels, MayBeCutTwice) {
  const at::NoGradGuard no_grad;
  const auto twice = mixer(), once = mixer();
  ParameterSlicer slicer;
  for (ChannelGroup* group : twice->channel_groups()) {
    // What the first cut leaves, then all of that but the first channel of each head.
    twice->keep_channels(*group, kept_channels(*group, 1), slicer);
    std::vector<std::int64_t> rest;
    for (std::int64_t c = 0; c < group->channels(); ++c) {
      if (c % group->width != 0) rest.push_back(c);
    }
    twice->keep_channels(*group, rest, slicer);
  }
  for (ChannelGroup* group : once->channel_groups()) {
    std::vector<std::int64_t> kept;
    for (std::int64_t head = 0; head < group->heads; ++head) {
      std::int64_t seen = 0;
      for (const std::int64_t c : kept_channels(*group, 1)) {
        if (c / group->width == head && seen++ > 0) kept.push_back(c);
      }
    }
    once->keep_channels(*group, kept, slicer);
  }
  ForwardState state;
  EXPECT_TRUE(at::equal(twice->forward(input(), state), once->forward(input(), state)));
}

// Rows of the writers and columns of the reader are those of the channels: without them the
// channels say nothing.
TEST_P(MixerChannels, WritersAndReadersAreThoseOfTheirGroup) {
  const at::NoGradGuard no_grad;
  const auto model = mixer();
  ForwardState state;
  const at::Tensor before = model->forward(input(), state);
  for (ChannelGroup* group : model->channel_groups()) {
    const auto writers = model->writers(*group);
    const bool values_group = group->role == ChannelRole::Value;
    ASSERT_EQ(writers.size(), values_group ? 1U : 2U) << group->name;
    for (const at::Tensor& writer : writers) EXPECT_EQ(writer.size(0), group->channels());
    const at::Tensor reader = model->reader(*group);
    EXPECT_EQ(reader.defined(), values_group) << group->name;
    if (!values_group) continue;
    EXPECT_EQ(reader.size(1), group->channels());
    // A view of the weight: scaled back, the output is as before.
    reader.mul_(2.0);
    EXPECT_GT(test::largest_difference(model->forward(input(), state), before), 1e-3);
    reader.div_(2.0);
  }
  EXPECT_TRUE(at::equal(model->forward(input(), state), before));
}

class Costs : public ChannelObserver {
 public:
  void cost(const ChannelGroup& group, const ChannelGroup* other, double macs) override {
    total += macs * static_cast<double>(group.channels() * (other ? other->channels() : 1));
  }
  double total = 0;
};

TEST_P(MixerChannels, CostWhatOperationsCount) {
  const at::NoGradGuard no_grad;
  const auto model = mixer();
  ParameterSlicer slicer;
  for (int round = 0; round < 2; ++round) {
    Costs costs;
    ForwardState state;
    state.channel_observer = &costs;
    const MacCounter counter;
    model->forward(input(), state);
    EXPECT_DOUBLE_EQ(costs.total + static_cast<double>(GetParam().fixed_macs),
                     static_cast<double>(counter.macs()));
    for (ChannelGroup* group : model->channel_groups()) {
      model->keep_channels(*group, kept_channels(*group, removed_of(*group)), slicer);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, MixerChannels, testing::ValuesIn(mixer_cases()),
                         [](const auto& mixer) { return mixer.param.name; });

}  // namespace
}  // namespace ablate
