#include "methods/models/edit.h"

#include <cmath>
#include <cstdio>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "methods/models/fold.h"
#include "methods/models/probe.h"
#include "tests/core/expect_error.h"
#include "tests/support/models.h"

namespace ablate {
namespace {

using test::golden_images;
using test::golden_vit;
using test::largest_difference;
using test::logits_of;
using test::make_model;
using test::message_of;
using test::parameter_count;
using test::wavy_images;

// The golden model with the attention of block 1 removed, computed apart.
TEST(RemoveMixer, WithDoublingGivesThePublishedLogits) {
  const at::Tensor expected =
      at::tensor({-0.7738239901, -0.1550280607, 0.0111349995, -0.6021145038, 1.0894485870,
                  -0.9610743778, -0.0926132189, -0.0797928111, -0.8029661939, 0.8016235608},
                 at::kDouble);
  const auto model = golden_vit();
  Surgeon surgeon(*model);
  surgeon.apply(SetGains{1, 2, 0});
  const at::Tensor diluted = logits_of(*model, golden_images());
  surgeon.apply(RemoveMixer{1});
  const at::Tensor removed = logits_of(*model, golden_images());
  EXPECT_LT(largest_difference(removed.flatten(), expected), 2e-10);
  EXPECT_TRUE(at::equal(diluted, removed));
  for (const auto& item : model->named_parameters()) {
    EXPECT_FALSE(item.key().starts_with("blocks.1.attn") ||
                 item.key().starts_with("blocks.1.norm1"));
  }
}

// norm1, qkv and proj go: 4 C^2 + 6 C a block (Lin et al., CVPR 2024).
TEST(RemoveMixer, LeavesThePublishedParameterCounts) {
  struct Row {
    const char* model;
    std::vector<int> removed;
    std::int64_t count;
    std::int64_t classes = 1000;
  };
  const Row rows[] = {{"deit_base_patch16_224", {0, 1, 3, 4, 6}, 74'748'136},
                      {"deit_base_patch16_224", {0, 1, 3, 4, 6, 9}, 72'384'232},
                      {"deit_small_patch16_224", {0, 2, 4}, 20'274'280},
                      {"deit_small_patch16_224", {0, 2, 4, 6}, 19'682'152},
                      {"deit_tiny_patch16_224", {0, 2, 4}, 5'271'592},
                      {"deit_tiny_patch16_224", {0, 2, 4, 6}, 5'122'984},
                      {"deit_base_patch16_224", {0, 1, 3, 4, 6}, 74'056'036, 100},
                      {"deit_base_patch16_224", {0, 1, 3, 4, 6, 9}, 71'692'132, 100}};
  for (const Row& row : rows) {
    const auto model = make_model(row.model, "", row.classes);
    Surgeon surgeon(*model);
    for (const int block : row.removed) surgeon.apply(RemoveMixer{block});
    EXPECT_EQ(parameter_count(*model), row.count);
    EXPECT_EQ(surgeon.generation(), static_cast<std::int64_t>(row.removed.size()));
  }
}

TEST(SetGains, OfTheEndsAreThePlainAndTheShrunkBlockBitForBit) {
  const auto model = golden_vit();
  const at::Tensor plain = logits_of(*model, golden_images());
  Surgeon surgeon(*model);
  surgeon.apply(SetGains{0, 1.5, 0.5});
  const at::Tensor halfway = logits_of(*model, golden_images());
  EXPECT_GT(largest_difference(plain, halfway), 1e-3);
  surgeon.apply(SetGains{0, 1, 1});
  EXPECT_TRUE(at::equal(plain, logits_of(*model, golden_images())));
  EXPECT_TRUE(surgeon.edits().empty());

  // Continuous at the end of dilution: no jump when the branch is dropped.
  surgeon.apply(SetGains{0, 2 - 1e-6, 1e-6});
  const at::Tensor nearly = logits_of(*model, golden_images());
  surgeon.apply(SetGains{0, 2, 0});
  EXPECT_LT(largest_difference(nearly, logits_of(*model, golden_images())), 1e-5);
}

TEST(SetGains, InterpolatesBetweenBranchAndIdentity) {
  const auto model = golden_vit();
  Block& block = *model->blocks()[0];
  const at::NoGradGuard no_grad;
  const at::Tensor x = wavy_images(1, 16, at::kDouble).view({2, 32, 12});
  ForwardState state;
  const at::Tensor branch = block.mixer()->forward(block.norm1()->forward(x), state);
  for (const double lambda : {0.25, 0.3, 0.75}) {
    block.set_attention_gains({2 - lambda, lambda});
    const at::Tensor mixed = x + (lambda * branch + (1 - lambda) * x);
    const at::Tensor expected = mixed + block.mlp().forward(block.norm2().forward(mixed), state);
    EXPECT_LT(largest_difference(block.forward({x, {}, {}}, state).value(), expected), 1e-13);
  }
}

TEST(SetGains, LeavesNoGradientInASkippedBranchAndNeverDropsTheIdentity) {
  const auto model = make_model("vit",
                                "depth = 1\nembed_dim = 8\nnum_heads = 2\nimage_size = 8\n"
                                "drop_path = 0.5\ndrop_path_mode = \"constant\"");
  model->initialize(2);
  model->train();
  Surgeon surgeon(*model);
  surgeon.apply(SetGains{0, 2, 0});
  ForwardState state;
  model->forward(wavy_images(4, 8), state).sum().backward();
  EXPECT_FALSE(model->named_parameters()["blocks.0.attn.qkv.weight"].grad().defined());
  EXPECT_FALSE(model->named_parameters()["blocks.0.norm1.weight"].grad().defined());
  EXPECT_TRUE(model->named_parameters()["blocks.0.mlp.fc1.weight"].grad().defined());
}

TEST(Surgeon, KeepsTheEditsThatMakeThePresentStructure) {
  const auto model = golden_vit();
  Surgeon surgeon(*model);
  surgeon.apply(MarkRetiring{0});
  EXPECT_TRUE(model->blocks()[0]->retiring());
  surgeon.apply(SetGains{0, 1.25, 0.75});
  surgeon.apply(SetGains{2, 1.25, 0.75});
  EXPECT_EQ(surgeon.generation(), 0);
  surgeon.apply(SetGains{0, 2, 0});
  EXPECT_EQ(surgeon.generation(), 1);
  surgeon.apply(RemoveMixer{0});
  EXPECT_EQ(surgeon.generation(), 2);
  const std::vector<Edit> expected{SetGains{2, 1.25, 0.75}, SetGains{0, 2, 0}, RemoveMixer{0}};
  EXPECT_EQ(surgeon.edits(), expected);

  const auto copy = golden_vit();
  Surgeon replay(*copy);
  for (const Edit& edit : surgeon.edits()) replay.apply(edit_from_json(to_json(edit)));
  EXPECT_EQ(replay.edits(), surgeon.edits());
  EXPECT_TRUE(at::equal(logits_of(*copy, golden_images()), logits_of(*model, golden_images())));
}

TEST(Surgeon, RefusesWhatChangesNothingOrHasNoPlace) {
  const auto model = golden_vit();
  Surgeon surgeon(*model);
  const auto refusal = [&](const Edit& edit) {
    return message_of<Error>([&] { surgeon.apply(edit); });
  };
  EXPECT_NE(refusal(RemoveMixer{3}).find("blocks 0 to 2"), std::string::npos);
  EXPECT_NE(refusal(RemoveMixer{-1}).find("blocks 0 to 2"), std::string::npos);
  EXPECT_NE(refusal(SetGains{0, 1, 1}).find("already"), std::string::npos);
  EXPECT_NE(refusal(InsertReducer{0, "nonsense", {}}).find("unknown token reducer"),
            std::string::npos);
  EXPECT_TRUE(surgeon.edits().empty());
  surgeon.apply(MarkRetiring{1});
  EXPECT_NE(refusal(MarkRetiring{1}).find("already"), std::string::npos);
  surgeon.apply(RemoveMixer{1});
  EXPECT_NE(refusal(RemoveMixer{1}).find("removed before"), std::string::npos);
  EXPECT_NE(refusal(MarkRetiring{1}).find("removed"), std::string::npos);
  EXPECT_NE(refusal(SetGains{1, 2, 1}).find("must be 0"), std::string::npos);
  surgeon.apply(SetGains{1, 2, 0});
  EXPECT_EQ(surgeon.edits().size(), 2U);

  const auto convolutional = make_model("resnet20");
  Surgeon other(*convolutional);
  EXPECT_NE(message_of<Error>([&] { other.apply(RemoveMixer{0}); }).find("no transformer blocks"),
            std::string::npos);
}

TEST(ApplyNeutral, AcceptsWhatLeavesEveryLogit) {
  const auto model = golden_vit();
  model->train();
  Surgeon surgeon(*model);
  EXPECT_EQ(surgeon.apply_neutral({MarkRetiring{0}, MarkRetiring{1}}), 0.0);
  surgeon.apply(SetGains{0, 2, 0});
  surgeon.apply(SetGains{1, 1.5, 0});
  EXPECT_EQ(surgeon.apply_neutral({RemoveMixer{0}, RemoveMixer{1}}), 0.0);
  EXPECT_EQ(model->blocks()[0]->mixer(), nullptr);
  EXPECT_TRUE(model->is_training());
  EXPECT_EQ(surgeon.edits().size(), 4U);
}

TEST(ApplyNeutral, NamesTheEditAndTheChangeOfABrokenClaim) {
  const auto model = golden_vit();
  Surgeon surgeon(*model);
  surgeon.apply(SetGains{1, 2 - 1e-9, 1e-9});
  const std::string message = message_of<Error>([&] {
    surgeon.apply_neutral({MarkRetiring{0}, RemoveMixer{1}});
  });
  EXPECT_NE(message.find("mark attention of block 0 retiring, remove attention of block 1"),
            std::string::npos)
      << message;
  double change = 0;
  ASSERT_EQ(std::sscanf(message.substr(message.find(" by ")).c_str(), " by %lf", &change), 1);
  EXPECT_GT(change, 0.0);
  EXPECT_LT(change, 1e-6);
}

// No number before and after is no change; no number on one side only is one.
TEST(ApplyNeutral, ComparesWhatIsNoNumberToo) {
  const auto model = golden_vit();
  const at::NoGradGuard no_grad;
  model->named_parameters()["head.bias"].select(0, 2).fill_(std::nan(""));
  Surgeon surgeon(*model);
  EXPECT_EQ(surgeon.apply_neutral({MarkRetiring{0}}), 0.0);
  const auto other = golden_vit();
  other->named_parameters()["blocks.1.attn.proj.bias"].fill_(HUGE_VAL);
  Surgeon breaks(*other);
  EXPECT_THROW(breaks.apply_neutral({RemoveMixer{1}}), Error);
}

TEST(Probe, LeavesModeStatisticsAndGeneratorAlone) {
  const auto model = make_model("resnet20", "image_size = 16", 4, 8);
  model->initialize(1);
  std::vector<at::Tensor> before;
  for (const at::Tensor& buffer : model->buffers()) before.push_back(buffer.clone());
  const at::Tensor generator = at::globalContext().defaultGenerator(at::kCPU).get_state();
  for (const bool training : {true, false}) {
    model->train(training);
    ForwardState first, second;
    const at::Tensor logits = probe(*model, first);
    EXPECT_FALSE(logits.requires_grad());
    EXPECT_EQ(logits.sizes(), (std::vector<std::int64_t>{1, 4}));
    EXPECT_TRUE(at::equal(logits, probe(*model, second)));
    EXPECT_EQ(model->is_training(), training);
  }
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(at::equal(before[i], model->buffers()[i]));
  }
  EXPECT_TRUE(at::equal(generator, at::globalContext().defaultGenerator(at::kCPU).get_state()));
}

/// Keeps every second token: enough to see order, length and keys.
class HalvingReducer final : public TokenReducer {
 public:
  void begin(ForwardState& state) override { state.proportional_attention = false; }
  TokenStream forward(TokenStream stream, ForwardState& state) override {
    keys_seen = state.keys.defined() ? state.keys.size(2) : 0;
    const at::Tensor tokens = stream.value();
    return {tokens.slice(1, 0, tokens.size(1), 2)};
  }
  KeyNeed key_need() const override { return KeyNeed::OwnBlock; }

  static inline std::int64_t keys_seen = 0;
};

std::shared_ptr<TokenReducer> make_halving(Params& params) {
  params.integer("unused", 0, 0, 1, "a setting");
  return std::make_shared<HalvingReducer>();
}
const Registry<TokenReducerInfo>::Add added{{.name = "halving", .make = make_halving}};

TEST(InsertReducer, ShortensTheSequenceBetweenMixerAndMlp) {
  const auto model = golden_vit();
  Surgeon surgeon(*model);
  surgeon.apply(InsertReducer{1, "halving", {}});
  EXPECT_EQ(surgeon.generation(), 1);
  ForwardState state;
  state.taps = {{"blocks.0", {}}, {"blocks.1.attn", {}}, {"blocks.1.mlp", {}}, {"blocks.2", {}}};
  model->forward(golden_images(), state);
  EXPECT_EQ(state.taps["blocks.0"].size(1), 17);
  EXPECT_EQ(state.taps["blocks.1.attn"].size(1), 17);
  EXPECT_EQ(state.taps["blocks.1.mlp"].size(1), 9);
  EXPECT_EQ(state.taps["blocks.2"].size(1), 9);
  EXPECT_EQ(HalvingReducer::keys_seen, 17);
  EXPECT_FALSE(state.keys.defined());
  EXPECT_EQ(state.protected_tokens, 1);
}

TEST(InsertReducer, NeedsABlockThatKeepsItsKeys) {
  const auto model = golden_vit();
  Surgeon surgeon(*model);
  surgeon.apply(InsertReducer{0, "halving", {}});
  const auto refusal = [&](const Edit& edit) {
    return message_of<Error>([&] { surgeon.apply(edit); });
  };
  EXPECT_NE(refusal(InsertReducer{0, "halving", {}}).find("already"), std::string::npos);
  EXPECT_NE(refusal(RemoveMixer{0}).find("needs the keys"), std::string::npos);
  EXPECT_NE(refusal(MarkRetiring{0}).find("needs the keys"), std::string::npos);
  surgeon.apply(MarkRetiring{1});
  EXPECT_NE(refusal(InsertReducer{1, "halving", {}}).find("going to be removed"),
            std::string::npos);
  surgeon.apply(RemoveMixer{2});
  EXPECT_NE(refusal(InsertReducer{2, "halving", {}}).find("needs keys"), std::string::npos);
  const Value odd = parse_toml("typo = 3", "test");
  EXPECT_NE(refusal(InsertReducer{1, "halving", odd}).find("typo"), std::string::npos);
}

TEST(Edit, SurvivesJsonAndNamesWhatIsWrong) {
  const std::vector<Edit> edits{MarkRetiring{2}, RemoveMixer{3}, SetGains{1, 1.9, 0.1},
                                InsertReducer{4, "tome", parse_toml("r = 8\nprop = true", "test")}};
  for (const Edit& edit : edits) {
    EXPECT_EQ(edit_from_json(nlohmann::json::parse(to_json(edit).dump())), edit) << describe(edit);
  }
  EXPECT_EQ(to_json(edits[1]).dump(), R"({"block":3,"edit":"remove_mixer"})");
  const auto bad = nlohmann::json::parse(R"({"edit":"paint","block":1})");
  EXPECT_NE(message_of<Error>([&] { edit_from_json(bad); }).find("unknown edit \"paint\""),
            std::string::npos);
  const auto lame = nlohmann::json::parse(R"({"edit":"set_gains","block":1})");
  EXPECT_NE(message_of<Error>([&] { edit_from_json(lame); }).find("malformed edit"),
            std::string::npos);
}

TEST(StructureHash, IgnoresTheOrderOfEditsButNothingElse) {
  const Value params = parse_toml("drop_path = 0.1", "test");
  const std::string base =
      structure_hash("vit", params, {SetGains{1, 2, 0}, RemoveMixer{1}, RemoveMixer{0}});
  EXPECT_EQ(base,
            structure_hash("vit", params, {RemoveMixer{0}, RemoveMixer{1}, SetGains{1, 2, 0}}));
  EXPECT_NE(base, structure_hash("vit", params, {RemoveMixer{0}, RemoveMixer{1}}));
  EXPECT_NE(base,
            structure_hash("vit2", params, {RemoveMixer{0}, RemoveMixer{1}, SetGains{1, 2, 0}}));
  EXPECT_NE(base, structure_hash("vit", {}, {RemoveMixer{0}, RemoveMixer{1}, SetGains{1, 2, 0}}));
}

TEST(Fold, RemovesDoublingsBitForBit) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto model =
        make_model("vit", "depth = 6\nembed_dim = 24\nnum_heads = 2\nimage_size = 16");
    model->initialize(9);
    model->to(type);
    model->eval();
    Surgeon surgeon(*model);
    for (const int block : {0, 2, 3}) {
      surgeon.apply(SetGains{block, 2, 0});
      surgeon.apply(RemoveMixer{block});
    }
    const at::Tensor images = wavy_images(2, 16, type);
    const at::Tensor doubled = logits_of(*model, images);
    const Fold fold = fold_doublings(*model);
    EXPECT_EQ(fold.scale, 8);
    EXPECT_DOUBLE_EQ(fold.norm_eps.at("blocks.0.norm2"), 1e-6 / 4);
    EXPECT_DOUBLE_EQ(fold.norm_eps.at("blocks.1.norm1"), 1e-6 / 4);
    EXPECT_DOUBLE_EQ(fold.norm_eps.at("norm"), 1e-6 / 64);
    EXPECT_FALSE(fold.norm_eps.contains("blocks.0.norm1"));
    for (const Block* block : model->blocks()) EXPECT_EQ(block->attention_gains().skip, 1.0);
    EXPECT_TRUE(at::equal(logits_of(*model, images), doubled));
    EXPECT_TRUE(fold_doublings(*model).norm_eps.empty());
  }
}

TEST(Fold, RefusesADilutionUnderWay) {
  const auto model = golden_vit();
  Surgeon surgeon(*model);
  surgeon.apply(SetGains{1, 1.5, 0.5});
  EXPECT_NE(message_of<Error>([&] { fold_doublings(*model); }).find("blocks.1"), std::string::npos);
  surgeon.apply(SetGains{1, 1.5, 0});
  EXPECT_NE(message_of<Error>([&] { fold_doublings(*model); }).find("power of two"),
            std::string::npos);
}

}  // namespace
}  // namespace ablate
