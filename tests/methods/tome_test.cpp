#include <cmath>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/methods/tome_support.h"

namespace ablate {
namespace {

using test::apply_tome;
using test::Counts;
using test::golden_images;
using test::golden_vit;
using test::make_model;
using test::message_of;
using test::method_component;
using test::MethodContext;
using test::recorded_schedule;
using test::remove_attention;
using test::token_counts;

at::Tensor logits_of(Model& model, const at::Tensor& images, ForwardState& state) {
  const at::NoGradGuard no_grad;
  return model.forward(images, state).flatten();
}

struct Golden {
  const char* settings;
  bool removed;  ///< block 1 has lost its attention and doubles
  std::vector<double> logits;
};

// Computed by the public code of Bolya et al., ICLR 2023.
const std::vector<Golden>& goldens() {
  static const std::vector<Golden> rows{
      {"r = 3",
       false,
       {-0.5522538821, -0.1760407587, 0.0700310198, -0.3907513183, 1.0238891688, -0.6713286206,
        -0.1499995562, -0.0902268856, -0.5616897600, 0.6685165456}},
      {"r = 3\nprop_attn = false",
       false,
       {-0.5489597991, -0.2145336522, -0.0721671383, -0.4355739097, 0.8793617305, -0.6443442522,
        -0.1617963955, -0.1089524606, -0.5417548908, 0.6938066039}},
      {"r = 4\ninflect = -1.0",
       false,
       {-0.5339295606, -0.1810713635, 0.0544927755, -0.3824583760, 1.0161204716, -0.6673587622,
        -0.1442113309, -0.0917386625, -0.5646699853, 0.6639536776}},
      {"r = 4\ninflect = -1.0\nprop_attn = false",
       false,
       {-0.5928865143, -0.2070200780, -0.0314232682, -0.4735504586, 1.0545609276, -0.6478092282,
        -0.1560284655, -0.1542378931, -0.5912774319, 0.7654111728}},
      {"r = 3",
       true,
       {-0.7739141226, -0.1552800365, 0.0160424546, -0.5993005327, 1.0942166187, -0.9572745970,
        -0.0934797923, -0.0790495723, -0.7993017947, 0.8048130932}},
  };
  return rows;
}

TEST(ToMe, GivesTheLogitsOfTheReference) {
  for (const Golden& row : goldens()) {
    const auto model = golden_vit();
    MethodContext context(*model);
    if (row.removed) remove_attention(context, 1);
    apply_tome(context, row.settings);
    const at::Tensor expected = at::tensor(row.logits, at::kDouble);
    ForwardState state;
    const at::Tensor logits = logits_of(*model, golden_images(), state);
    EXPECT_LT((logits - expected).abs().max().item<double>(), 2e-10) << row.settings;
    model->to(at::kFloat);
    ForwardState single;
    const at::Tensor rounded = logits_of(*model, golden_images().to(at::kFloat), single);
    EXPECT_LT((rounded.to(at::kDouble) - expected).abs().max().item<double>(), 1e-4)
        << row.settings;
  }
}

TEST(ToMe, GivesTheTokenMapsOfTheReference) {
  struct Row {
    const char* settings;
    bool removed;
    Counts first, second;  // token that holds each patch, samples 0 and 1
    std::vector<Counts> sizes;
  };
  const Row rows[] = {
      {"r = 3",
       false,
       {0, 7, 4, 6, 4, 2, 3, 1, 3, 4, 5, 7, 4, 2, 3, 2, 3},
       {0, 6, 5, 6, 7, 1, 3, 2, 4, 7, 5, 7, 5, 4, 3, 4, 4},
       {{1, 1, 3, 4, 4, 1, 1, 2}, {1, 1, 1, 2, 4, 3, 2, 3}}},
      {"r = 4\ninflect = -1.0",
       false,
       {0, 1, 3, 1, 3, 2, 2, 2, 2, 3, 3, 1, 3, 4, 2, 2, 2},
       {0, 1, 3, 1, 3, 2, 4, 2, 4, 3, 3, 3, 3, 4, 4, 4, 4},
       {{1, 3, 7, 5, 1}, {1, 2, 2, 6, 6}}},
      {"r = 3",
       true,
       {0, 2, 3, 7, 3, 8, 4, 8, 1, 3, 5, 9, 3, 10, 4, 10, 6},
       {0, 7, 4, 7, 9, 1, 6, 8, 3, 2, 5, 9, 5, 3, 6, 10, 10},
       {}},
  };
  for (const Row& row : rows) {
    const auto model = golden_vit();
    MethodContext context(*model);
    if (row.removed) remove_attention(context, 1);
    apply_tome(context, row.settings);
    ForwardState state;
    state.track_sources = true;
    logits_of(*model, golden_images(), state);
    EXPECT_TRUE(at::equal(state.sources[0], at::tensor(row.first, at::kLong))) << state.sources;
    EXPECT_TRUE(at::equal(state.sources[1], at::tensor(row.second, at::kLong))) << state.sources;
    for (std::size_t i = 0; i < row.sizes.size(); ++i) {
      const at::Tensor sizes = state.token_sizes[static_cast<std::int64_t>(i)].flatten();
      EXPECT_TRUE(at::equal(sizes, at::tensor(row.sizes[i], at::kDouble))) << sizes;
    }
  }
}

// A cap of 0 merges nothing: the pass must be that of the plain model.
TEST(ToMe, ThatCanMergeNothingIsThePlainModelBitForBitAndIsRefused) {
  const char* settings = "image_size = 8\npatch_size = 8\nembed_dim = 8\nnum_heads = 2\ndepth = 2";
  const auto plain = make_model("vit", settings), merging = make_model("vit", settings);
  plain->initialize(3);
  merging->initialize(3);
  MethodContext context(*merging);
  // Class token and one patch: floor((2 - 1) / 2) = 0.
  const std::string refusal = message_of<SpecError>([&] { apply_tome(context, "r = 1"); });
  EXPECT_NE(refusal.find("no token goes anywhere"), std::string::npos) << refusal;
  EXPECT_EQ(recorded_schedule(context), (Counts{1, 1}));
  ForwardState first, second;
  EXPECT_TRUE(at::equal(logits_of(*plain, test::wavy_images(3, 8), first),
                        logits_of(*merging, test::wavy_images(3, 8), second)));
  EXPECT_FALSE(second.token_sizes.defined());
}

struct Placement {
  std::vector<int> removed;
  const char* settings;
  Counts schedule;
};

TEST(ToMe, PlacesItsScheduleByBlockNumber) {
  const Placement rows[] = {
      {{}, "r = 2", {2, 2, 2, 2}},
      {{}, "r = 2\nstart = 3", {0, 0, 0, 2}},
      {{1}, "r = 2", {2, 0, 2, 2}},
      {{1}, "r = 2\nstart = 1", {0, 0, 2, 2}},
      {{1, 2}, "r = 3\nredistribute = true", {6, 0, 0, 6}},
      {{1}, "r = 3\nredistribute = true", {4, 0, 4, 4}},
      {{}, "r = 3\ninflect = 1.0", {0, 2, 4, 6}},
      {{1}, "r = 3\ninflect = 1.0", {0, 0, 4, 6}},
      {{1}, "schedule = [5, 4, 3]", {5, 0, 3, 0}},
      {{1}, "r = 2\nwithout_attention = 'features'", {2, 2, 2, 2}},
      {{1}, "r = 2\nmetric = 'features'", {2, 0, 2, 2}},
  };
  for (const Placement& row : rows) {
    const auto model = make_model("vit", "embed_dim = 8\nnum_heads = 2\ndepth = 4");
    model->initialize(1);
    MethodContext context(*model);
    for (const int block : row.removed) context.surgeon().apply(RemoveMixer{block});
    apply_tome(context, row.settings);
    EXPECT_EQ(recorded_schedule(context), row.schedule) << row.settings;
    // 65 tokens are enough for no cap to bind.
    const std::int64_t merged = std::accumulate(row.schedule.begin(), row.schedule.end(), 0L);
    EXPECT_EQ(token_counts(*model).back(), 65 - merged) << row.settings;
  }
}

TEST(ToMe, KeepsAwayFromBlocksThatWillLoseTheirAttention) {
  const auto model = make_model("vit", "embed_dim = 8\nnum_heads = 2\ndepth = 3");
  model->initialize(1);
  MethodContext context(*model);
  context.surgeon().apply(MarkRetiring{1});
  apply_tome(context, "r = 4");
  EXPECT_EQ(recorded_schedule(context), (Counts{4, 0, 4}));
  const Counts before = token_counts(*model);
  context.surgeon().apply(SetGains{1, 2, 0});
  context.surgeon().apply(RemoveMixer{1});
  EXPECT_EQ(token_counts(*model), before);
}

TEST(ToMe, TrainsThroughMerging) {
  const auto model = make_model("vit", "image_size = 16\nembed_dim = 8\nnum_heads = 2\ndepth = 2");
  model->initialize(1);
  model->train();
  MethodContext context(*model);
  apply_tome(context, "r = 5");
  ForwardState state;
  model->forward(test::wavy_images(4, 16), state).square().sum().backward();
  for (const auto& item : model->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
  }
}

TEST(ToMe, RefusesSettingsThatContradict) {
  const auto refusal = [](const char* settings) {
    return message_of<SpecError>([&] { method_component(cat("name = 'tome'\n", settings)); });
  };
  EXPECT_NE(refusal("r = 0").find("set r, or schedule"), std::string::npos);
  EXPECT_NE(refusal("r = 2\nschedule = [1]").find("takes the place of r"), std::string::npos);
  EXPECT_NE(refusal("inflect = 0.5\nschedule = [1]").find("leave those out"), std::string::npos);
  EXPECT_NE(refusal("ratio = 2").find("ratio"), std::string::npos);
  EXPECT_NE(refusal("metric = 'queries'").find("keys, features, norm_features"), std::string::npos);
}

TEST(ToMe, ResolvedSettingsResolveToThemselves) {
  for (const char* settings : {"", "r = 3\ninflect = -1.0", "schedule = [3, 0, 2]"}) {
    const Component once = method_component(cat("name = 'tome'\n", settings));
    Params params(once.params, "again");
    Registry<MethodInfo>::get("tome").make(params);
    params.finish();
    EXPECT_EQ(params.resolved(), once.params) << settings;
  }
}

TEST(ToMe, RefusesAModelWithoutRoomForIt) {
  const auto model = make_model("vit", "embed_dim = 8\nnum_heads = 2\ndepth = 3");
  MethodContext context(*model);
  EXPECT_NE(message_of<SpecError>([&] {
              apply_tome(context, "schedule = [1, 1, 1, 1]");
            }).find("4 numbers for 3 blocks"),
            std::string::npos);
  EXPECT_NE(message_of<Error>([&] {
              apply_tome(context, "r = 2\nstart = 3");
            }).find("\"tome\" changed nothing"),
            std::string::npos);
  apply_tome(context, "r = 2");
  EXPECT_NE(message_of<Error>([&] { apply_tome(context, "r = 2"); }).find("already"),
            std::string::npos);
}

}  // namespace
}  // namespace ablate
