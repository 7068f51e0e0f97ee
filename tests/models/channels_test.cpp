#include "methods/models/channels.h"

#include <cmath>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/core/expect_error.h"
#include "tests/models/channel_support.h"

// Channels that are masked and channels that are gone are the same.

namespace ablate {
namespace {

using test::channels_of;
using test::cuts_of_all_groups;
using test::gate_by;
using test::golden_images;
using test::golden_vit;
using test::largest_difference;
using test::logits_of;
using test::mask_of;
using test::message_of;
using test::some_channels;

at::Tensor masked_logits(Model& model, const std::vector<KeepChannels>& cuts,
                         const at::Tensor& images) {
  const at::NoGradGuard no_grad;
  ForwardState state;
  gate_by(model, cuts, state);
  return model.forward(images, state);
}

void cut_all(Model& model, const std::vector<KeepChannels>& cuts) {
  Surgeon surgeon(model);
  for (const KeepChannels& cut : cuts) surgeon.apply(cut);
}

struct Case {
  const char* model;
  const char* settings;
  const char* reweight;  ///< kind, or none
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.model << " " << c.reweight; }

constexpr const char* kVit =
    "image_size = 16\npatch_size = 4\nembed_dim = 24\ndepth = 2\nnum_heads = 3";

class MaskAndCut : public testing::TestWithParam<Case> {
 protected:
  std::shared_ptr<Model> make(at::ScalarType type = at::kDouble) const {
    auto model = test::make_model(GetParam().model, GetParam().settings, 5);
    if (std::string(GetParam().reweight) != "none") {
      Surgeon surgeon(*model);
      for (int block = 0; block < 2; ++block) {
        for (const auto& owned : model->blocks()[block]->channel_groups()) {
          if (owned.group->role != ChannelRole::Value) continue;
          surgeon.apply(AttachReweight{block, owned.group->name, GetParam().reweight, 8});
        }
      }
    }
    model->to(at::kDouble);
    model->eval();
    test::fill_wavily(*model);
    model->to(type);
    return model;
  }
};

TEST_P(MaskAndCut, GiveTheSameLogits) {
  const auto masked = make(), cut = make();
  const at::Tensor images = test::wavy_images(3, masked->image_size(), at::kDouble);
  const auto cuts = cuts_of_all_groups(*masked);
  const at::Tensor expected = masked_logits(*masked, cuts, images);
  EXPECT_GT(largest_difference(expected, logits_of(*masked, images)), 1e-3) << "a mask that acts";
  cut_all(*cut, cuts);
  EXPECT_LT(largest_difference(logits_of(*cut, images), expected), 1e-10);
}

TEST_P(MaskAndCut, GiveTheSameLogitsInSinglePrecision) {
  const auto masked = make(at::kFloat), cut = make(at::kFloat);
  const at::Tensor images = test::wavy_images(3, masked->image_size());
  const auto cuts = cuts_of_all_groups(*masked);
  const at::Tensor expected = masked_logits(*masked, cuts, images);
  cut_all(*cut, cuts);
  const double size = expected.abs().max().item<double>();
  EXPECT_LT(largest_difference(logits_of(*cut, images), expected) / size, 1e-4);
}

/// The gradient of the whole parameter from that of what is left of it: parts that came from one
/// number add up, the rest is 0.
at::Tensor spread_back(at::Tensor gradient, const Surgeon& surgeon, const std::string& name,
                       at::IntArrayRef shape) {
  std::vector<Surgeon::ParameterSlice> slices;
  std::vector<std::vector<std::int64_t>> shapes{shape.vec()};
  for (const auto& slice : surgeon.slices()) {
    if (slice.parameter != name) continue;
    slices.push_back(slice);
    shapes.push_back(shapes.back());
    shapes.back()[static_cast<std::size_t>(slice.axis)] = std::ssize(slice.index);
  }
  for (std::size_t i = slices.size(); i-- > 0;) {
    gradient = at::zeros(shapes[i], gradient.options())
                   .index_add(slices[i].axis, at::tensor(slices[i].index, at::kLong), gradient);
  }
  return gradient;
}

TEST_P(MaskAndCut, GiveTheSameGradients) {
  const auto masked = make(), cut = make();
  const at::Tensor images = test::wavy_images(3, masked->image_size(), at::kDouble);
  const auto cuts = cuts_of_all_groups(*masked);
  ForwardState gated, plain;
  gate_by(*masked, cuts, gated);
  masked->forward(images, gated).square().sum().backward();
  Surgeon surgeon(*cut);
  for (const KeepChannels& edit : cuts) surgeon.apply(edit);
  cut->forward(images, plain).square().sum().backward();
  const auto whole = masked->named_parameters();
  for (const auto& item : cut->named_parameters()) {
    const at::Tensor expected = whole[item.key()].grad();
    const at::Tensor found =
        spread_back(item.value().grad(), surgeon, item.key(), expected.sizes());
    EXPECT_LT(largest_difference(found, expected),
              1e-10 * (1.0 + expected.abs().max().item<double>()))
        << item.key();
  }
}

TEST_P(MaskAndCut, OnesChangeNoBit) {
  const auto model = make(at::kFloat);
  const at::Tensor images = test::wavy_images(3, model->image_size());
  ForwardState state;
  for (Block* block : model->blocks()) {
    for (const auto& owned : block->channel_groups()) {
      state.channel_gates[owned.group] = at::ones({owned.group->channels()});
    }
  }
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(model->forward(images, state), logits_of(*model, images)));
}

constexpr const char* kSwin =
    "image_size = 16\npatch_size = 2\nembed_dims = [16, 32]\ndepths = [2, 1]\nnum_heads = [2, 4]\n"
    "attention = 'SL'\nwindow = 4";
constexpr const char* kPvt =
    "image_size = 16\npatch_size = 2\nembed_dims = [16, 32]\ndepths = [1, 1]\nnum_heads = [1, 2]\n"
    "mlp_ratios = [2, 2]\nreductions = [4, 1]\nattention = 'SL'";
constexpr const char* kCswin =
    "image_size = 16\npatch_size = 2\nembed_dims = [16, 32]\ndepths = [1, 1]\nnum_heads = [2, 4]\n"
    "attention = 'SL'\nstripes = [2, 4]";

INSTANTIATE_TEST_SUITE_P(
    Models, MaskAndCut,
    testing::Values(Case{"vit", kVit, "none"}, Case{"vit", kVit, "dynamic"},
                    Case{"vit", kVit, "static"}, Case{"vit", kVit, "head"},
                    Case{"flatten_vit", kVit, "none"}, Case{"flatten_vit", kVit, "dynamic"},
                    Case{"swin", kSwin, "none"}, Case{"swin", kSwin, "dynamic"},
                    Case{"pvt", kPvt, "none"}, Case{"pvt", kPvt, "dynamic"},
                    Case{"cswin", kCswin, "none"}, Case{"cswin", kCswin, "dynamic"}));

std::shared_ptr<Model> small_flatten() {
  auto model = test::make_model("flatten_vit", kVit, 5);
  model->to(at::kDouble);
  model->eval();
  test::fill_wavily(*model);
  return model;
}

/// Zeroes rows of a parameter.
void zero_rows(Model& model, const std::string& name, const std::vector<std::int64_t>& rows) {
  const at::NoGradGuard no_grad;
  model.named_parameters()[name].index_fill_(0, at::tensor(rows, at::kLong), 0.0);
}

// Negative controls of where gates stand. Queries and keys that are masked before the focusing map
// leave its epsilon and the positional encoding alive; values that are masked only at the input
// leave the bias of their convolution.
TEST(FlattenMask, StandsBehindTheRectifierAndTheConvolution) {
  const at::Tensor images = test::wavy_images(2, 16, at::kDouble);
  const auto kept = some_channels(3, 8, 4, 1);
  std::vector<std::int64_t> early, values;
  for (std::int64_t i = 0; i < 24; ++i) {
    if (std::ranges::binary_search(kept, i)) continue;
    early.push_back(i);
    early.push_back(24 + i);
    values.push_back(48 + i);
  }
  for (const bool query_key : {true, false}) {
    const std::vector<KeepChannels> cuts{{0, query_key ? "qk" : "v", kept}};
    const auto right = small_flatten(), wrong = small_flatten(), cut = small_flatten();
    const at::Tensor expected = masked_logits(*right, cuts, images);
    zero_rows(*wrong, "blocks.0.attn.qkv.weight", query_key ? early : values);
    zero_rows(*wrong, "blocks.0.attn.qkv.bias", query_key ? early : values);
    cut_all(*cut, cuts);
    EXPECT_LT(largest_difference(logits_of(*cut, images), expected), 1e-10);
    EXPECT_GT(largest_difference(logits_of(*wrong, images), expected), 1e-4);
  }
}

// The scale of a softmax stays that of the born width: with the one of the new width the masked
// network is another.
TEST(ChannelCut, KeepsTheScaleOfTheBornWidth) {
  const auto masked = golden_vit(), cut = golden_vit();
  const std::vector<KeepChannels> cuts{{0, "qk", some_channels(2, 6, 3, 1)}};
  const at::Tensor expected = masked_logits(*masked, cuts, golden_images());
  cut_all(*cut, cuts);
  EXPECT_LT(largest_difference(logits_of(*cut, golden_images()), expected), 1e-12);
  const at::NoGradGuard no_grad;
  at::Tensor weight = cut->named_parameters()["blocks.0.attn.qkv.weight"];
  at::Tensor bias = cut->named_parameters()["blocks.0.attn.qkv.bias"];
  weight.narrow(0, 0, 6).mul_(std::sqrt(2.0));
  bias.narrow(0, 0, 6).mul_(std::sqrt(2.0));
  EXPECT_GT(largest_difference(logits_of(*cut, golden_images()), expected), 1e-5);
}

// With unequal counts a head gets channels of its neighbour (the misalignment that balanced heads
// avoid).
TEST(ChannelCut, OfUnequalCountsIsMisaligned) {
  const auto masked = golden_vit(), cut = golden_vit();
  const std::vector<KeepChannels> unequal{{1, "v", {0, 1, 2, 3, 5, 10}}};
  const at::Tensor expected = masked_logits(*masked, unequal, golden_images());
  cut_all(*cut, unequal);
  EXPECT_GT(largest_difference(logits_of(*cut, golden_images()), expected), 1e-2);
}

TEST(ChannelCut, IsRefusedWhereItMakesNoSense) {
  const auto model = golden_vit();
  Surgeon surgeon(*model);
  const auto refusal = [&](const KeepChannels& edit) {
    return message_of<Error>([&] { surgeon.apply(edit); });
  };
  EXPECT_NE(refusal({3, "v", {0, 6}}).find("blocks 0 to 2"), std::string::npos);
  EXPECT_NE(refusal({0, "w", {0, 6}}).find("it has: qk, v, mlp"), std::string::npos);
  EXPECT_NE(refusal({0, "v", {0, 1, 6}}).find("3 channels for 2 heads"), std::string::npos);
  EXPECT_NE(refusal({0, "v", {6, 0}}).find("must rise"), std::string::npos);
  EXPECT_NE(refusal({0, "v", {0, 12}}).find("0 to 11"), std::string::npos);
  EXPECT_NE(refusal({0, "v", some_channels(2, 6, 6, 0)}).find("all of them"), std::string::npos);
  EXPECT_TRUE(surgeon.edits().empty());
  EXPECT_EQ(surgeon.generation(), 0);
  surgeon.apply(KeepChannels{0, "v", {0, 6}});
  EXPECT_NE(refusal({0, "v", {0, 1}}).find("before"), std::string::npos);
}

TEST(ChannelCut, SurvivesJson) {
  const std::vector<Edit> edits{AttachGates{{{{{0, "qk"}, {0, "v"}}, false}, {{{1, "v"}}, true}},
                                            Value::Table{{"threshold", 0.5}}},
                                DetachGates{}, AttachReweight{1, "v", "dynamic", 8},
                                FoldReweight{1, "v"}, KeepChannels{2, "mlp", {1, 3, 7}}};
  for (const Edit& edit : edits) {
    EXPECT_EQ(edit_from_json(nlohmann::json::parse(to_json(edit).dump())), edit);
    EXPECT_FALSE(describe(edit).empty());
  }
}

// Attach, select, detach: only what was cut is recorded.
TEST(ChannelGates, LeaveNoTraceAndGuardTheirChannels) {
  const auto model = golden_vit();
  Surgeon surgeon(*model);
  const at::Tensor before = logits_of(*model, golden_images());
  surgeon.apply(AttachGates{{{{{0, "qk"}}}, {{{0, "v"}}}, {{{1, "mlp"}}}}, {}});
  EXPECT_TRUE(at::equal(logits_of(*model, golden_images()), before)) << "all open at first";
  EXPECT_THROW(surgeon.apply(KeepChannels{0, "v", {0, 6}}), Error) << "gates first";
  EXPECT_THROW(surgeon.apply(RemoveMixer{0}), Error);
  EXPECT_THROW(surgeon.apply(AttachGates{{{{{2, "v"}}}}, {}}), Error) << "twice";
  const at::NoGradGuard no_grad;
  model->channel_gates()->scores(1)[0][2] = 0.1;
  model->channel_gates()->scores(1)[1][4] = 0.2;
  const at::Tensor gated = logits_of(*model, golden_images());
  EXPECT_GT(largest_difference(gated, before), 1e-4);
  surgeon.apply(DetachGates{});
  EXPECT_TRUE(surgeon.edits().empty());
  EXPECT_TRUE(at::equal(logits_of(*model, golden_images()), before));
  surgeon.apply(KeepChannels{0, "v", {0, 1, 3, 4, 5, 6, 7, 8, 9, 11}});
  EXPECT_LT(largest_difference(logits_of(*model, golden_images()), gated), 1e-12);
}

TEST(ChannelGates, OfOneSeatDecideAlike) {
  const auto model = golden_vit();
  Surgeon surgeon(*model);
  surgeon.apply(AttachGates{{{{{0, "qk"}, {0, "v"}}, false}, {{{1, "v"}}, true}}, {}});
  ChannelGates& gates = *model->channel_gates();
  const at::NoGradGuard no_grad;
  gates.scores(0)[0][3] = 0.0;
  gates.scores(0)[1][0] = 0.0;
  gates.scores(1)[0][5] = 0.0;
  ForwardState state;
  model->forward(golden_images(), state);
  const ChannelGroup& qk = *channels_of(*model, 0, "qk").group;
  const ChannelGroup& v = *channels_of(*model, 0, "v").group;
  const at::Tensor expected = at::tensor({1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1}, at::kDouble);
  EXPECT_TRUE(at::equal(channel_gate(qk, state), expected));
  EXPECT_TRUE(at::equal(channel_gate(v, state), expected));
  EXPECT_TRUE(at::equal(channel_gate(*channels_of(*model, 1, "v").group, state),
                        at::tensor({1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0}, at::kDouble)));
  EXPECT_THROW(surgeon.apply(AttachGates{{{{{2, "v"}, {2, "mlp"}}}}, {}}), Error);
}

}  // namespace
}  // namespace ablate
