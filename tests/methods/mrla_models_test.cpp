#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/measure/mac_counter.h"
#include "tests/core/expect_error.h"
#include "tests/methods/mrla_support.h"
#include "tests/methods/published_sizes.h"

// Layer attention in models: what it adds to their size, and what skipping a retrieval does.

namespace ablate {
namespace {

using test::apply_methods;
using test::largest_difference;
using test::make_model;
using test::PublishedSize;
using test::wavy_images;

// Counted on the public models of the papers (Fang et al., ICLR 2023; Wang et al., IJCAI 2024). Of
// the softmax form on ImageNet, with the stem of the plain network. Costs are those of convolutions
// and linear layers.
constexpr PublishedSize kPublished[] = {
    {"resnet20", "mrla_base", 10, 230'286, 35.81},
    {"resnet20", "mrla_light", 10, 231'182, 35.81},
    {"resnet56", "mrla_base", 10, 621'046, 93.43},
    {"resnet56", "mrla_light", 10, 623'734, 93.43},
    {"resnet110", "mrla_base", 10, 1'207'186, 179.87},
    {"resnet110", "mrla_light", 10, 1'212'562, 179.87},
    {"resnet20", "mrla_base", 100, 253'416},
    {"resnet56", "mrla_base", 100, 644'176},
    {"resnet110", "mrla_base", 100, 1'230'316},
    {"resnet20", "mrla_light", 100, 254'312},
    {"resnet56", "mrla_light", 100, 646'864},
    {"resnet110", "mrla_light", 100, 1'235'692},
    {"resnet50", "mrla_base", 1000, 25'557'032 + 166'316, 4139.0},
    {"resnet50", "mrla_light", 1000, 25'738'452, 4139.0},
    {"resnet101", "mrla_base", 1000, 44'549'160 + 377'206 - 19'232},
    {"resnet101", "mrla_light", 1000, 44'939'646, 7882.1},
    {"deit_tiny_patch16_224", "mrla_light", 1000, 5'717'416 + 32'376},
    {"deit_small_patch16_224", "mrla_light", 1000, 22'050'664 + 64'632},
    {"deit_base_patch16_224", "mrla_light", 1000, 86'567'656 + 129'144},
    {"deit_tiny_patch16_224", "mrla_base", 1000, 5'717'416 + 25'464},
    {"deit_small_patch16_224", "mrla_base", 1000, 22'050'664 + 50'808},
    {"deit_base_patch16_224", "mrla_base", 1000, 86'567'656 + 101'496},
};

TEST(MrlaModels, HaveThePublishedSizes) {
  test::expect_published_sizes(kPublished, [](const PublishedSize& row, double mega_macs) {
    EXPECT_NEAR(mega_macs, row.mega_macs, row.mega_macs > 1000 ? 0.05 : 0.005);
  });
}

// 9 P C + 2 k C for each block of a transformer with P patches.
TEST(MrlaModels, CostOfATransformerIsThatOfItsConvolutions) {
  const auto plain = make_model("vit_tiny_patch4_32"), connected = make_model("vit_tiny_patch4_32");
  plain->initialize(1);
  connected->initialize(1);
  apply_methods(*connected, {"name = 'mrla_base'"});
  EXPECT_EQ(measure_cost(*connected).macs - measure_cost(*plain).macs,
            12 * (9 * 64 * 192 + 2 * 5 * 192));
}

constexpr const char* kVit =
    "image_size = 16\npatch_size = 4\nembed_dim = 16\ndepth = 5\nnum_heads = 2";

std::shared_ptr<Model> small_model(const char* name, const std::string& method) {
  const bool residual = std::string_view(name).starts_with("resnet");
  auto model = make_model(name, residual ? "image_size = 16" : kVit, 4);
  model->initialize(1);
  apply_methods(*model, {method});
  return model;
}

at::Tensor evaluated(Model& model, ForwardState& state) {
  const at::NoGradGuard no_grad;
  model.eval();
  return model.forward(wavy_images(3, 16), state);
}
at::Tensor evaluated(Model& model) {
  ForwardState state;
  return evaluated(model, state);
}

TEST(MrlaVit, LeavesTheClassTokenToTheOthersUnlessToldSo) {
  ForwardState state;
  for (const char* method : {"mrla_base", "mrla_light"}) {
    const auto clean = small_model("vit", cat("name = '", method, "'"));
    const auto quirk = small_model("vit", cat("name = '", method, "'\nclass_token = true"));
    const auto token_after_first_block = [](Model& model) {
      ForwardState at_first;
      at_first.taps.emplace("blocks.0", at::Tensor());
      evaluated(model, at_first);
      return at_first.taps["blocks.0"].select(1, 0);
    };
    const auto plain = make_model("vit", kVit, 4);
    plain->initialize(1);
    const at::Tensor expected = token_after_first_block(*plain);
    EXPECT_TRUE(at::equal(token_after_first_block(*clean), expected));
    const at::Tensor normalised = at::layer_norm(expected, {16}, {}, {}, 1e-6);
    EXPECT_LT(largest_difference(token_after_first_block(*quirk), expected + normalised), 1e-5);
  }
}

TEST(MrlaVit, StartsANewCacheWithEachGroup) {
  const auto model = small_model("vit", "name = 'mrla_base'\ngroup = 2");
  ForwardState state;
  RetrievalRecord record;
  state.retrievals = &record;
  evaluated(*model, state);
  std::vector<std::int64_t> lengths;
  for (const Retrieval& retrieval : record.retrievals) {
    lengths.push_back(retrieval.log_row.size(2));
  }
  EXPECT_EQ(lengths, (std::vector<std::int64_t>{1, 2, 1, 2, 1}));
}

// Merging that takes nobody's place: the map is that of all patches, whatever tokens stand there.
TEST(MrlaVit, WorksOnTheGridOfMergedTokens) {
  for (const char* method : {"mrla_base", "mrla_light"}) {
    const auto model = small_model("vit", cat("name = '", method, "'"));
    Surgeon surgeon(*model);
    surgeon.apply(InsertReducer{1, "tome", Value::Table{{"r", std::int64_t{4}}}});
    ForwardState state;
    state.taps.emplace("blocks.1", at::Tensor());
    state.taps.emplace("blocks.2", at::Tensor());
    EXPECT_TRUE(evaluated(*model, state).isfinite().all().item<bool>());
    EXPECT_EQ(state.taps["blocks.1"].size(1), 13);
    EXPECT_EQ(state.layer_history->retrieved.size(2), 4);
  }
}

// Attention removed from one block, tokens merged in the others, blocks connected.
TEST(MrlaVit, GoesWithRemovedAttentionAndMergedTokensTogether) {
  for (const char* method : {"mrla_base", "mrla_light"}) {
    const auto model = make_model("vit", kVit, 4);
    model->initialize(1);
    apply_methods(*model, {cat("name = '", method, "'"),
                           "name = 'nose'\nlayers = [2]\ndirect = true", "name = 'tome'\nr = 2"});
    EXPECT_EQ(model->blocks()[2]->mixer(), nullptr);
    ForwardState state;
    model->train();
    const at::Tensor logits = model->forward(wavy_images(3, 16), state);
    EXPECT_EQ(state.token_sizes.size(1), 17 - 4 * 2);
    logits.square().sum().backward();
    for (const auto& item : model->named_parameters()) {
      const bool first_query = item.key() == "blocks.0.layer_attention.query" ||
                               item.key() == "blocks.4.layer_attention.query";
      const bool last = item.key().starts_with("blocks.4.layer_attention.");
      if (first_query || last) continue;  // no choice, or behind the class token's last reader
      EXPECT_TRUE(item.value().grad().defined()) << item.key();
    }
  }
}

const std::vector<std::string> kMethods{"mrla_base", "mrla_light"};

TEST(SkipRetrieval, DroppedBranchesAreNotThere) {
  for (const std::string& method : kMethods) {
    for (const char* name : {"resnet20", "vit"}) {
      SCOPED_TRACE(method + name);
      const auto model = small_model(name, cat("name = '", method, "'"));
      Surgeon surgeon(*model);
      const at::Tensor before = evaluated(*model);
      surgeon.apply(SkipRetrieval{1, SkipMode::Drop});
      const at::Tensor dropped = evaluated(*model);
      EXPECT_FALSE(at::equal(before, dropped));
      // The same as a model that never had it.
      EXPECT_EQ(surgeon.apply_neutral({DeleteSkipped{1}}), 0.0);
      EXPECT_EQ(model->layer_sites()[1]->layer_attention(), nullptr);
    }
  }
}

TEST(SkipRetrieval, LeavesNoGradientAndNothingToTrainInWhatItSkips) {
  for (const SkipMode mode : {SkipMode::Drop, SkipMode::KeepKeys, SkipMode::Reuse}) {
    const auto model = small_model("resnet20", "name = 'mrla_base'");
    Surgeon surgeon(*model);
    surgeon.apply(SkipRetrieval{1, mode});
    model->train();
    ForwardState state;
    model->forward(wavy_images(4, 16), state).square().sum().backward();
    const auto parameters = model->named_parameters();
    const auto trains = [&](const std::string& part) {
      const at::Tensor parameter = parameters[cat("layer1.1.layer_attention.", part)];
      EXPECT_FALSE(parameter.grad().defined() && !parameter.requires_grad()) << part;
      return parameter.requires_grad();
    };
    EXPECT_FALSE(trains("query"));
    EXPECT_EQ(trains("key"), mode == SkipMode::KeepKeys);
    EXPECT_EQ(trains("value"), mode == SkipMode::KeepKeys);
    EXPECT_EQ(trains("norm.weight"), mode == SkipMode::Reuse);
    surgeon.apply(SkipRetrieval{1, SkipMode::None});
    EXPECT_TRUE(surgeon.edits().empty());
    for (const auto& item : model->named_parameters()) EXPECT_TRUE(item.value().requires_grad());
  }
}

// A branch that is kept out of the output but in the cache is one whose BatchNorm says 0.
TEST(SkipRetrieval, KeptKeysAreThoseOfABlockWithANormOfZero) {
  const std::string method = "name = 'mrla_base'\ndrop_path = 0.0\nstages = [0]";
  const auto skipping = small_model("resnet56", method), silent = small_model("resnet56", method);
  skipping->to(at::kDouble);
  silent->to(at::kDouble);
  Surgeon(*skipping).apply(SkipRetrieval{3, SkipMode::KeepKeys});
  const std::string norm = "layer1.3.layer_attention.norm.";
  {
    const at::NoGradGuard no_grad;
    for (const char* part : {"weight", "bias"}) silent->named_parameters()[norm + part].zero_();
  }
  const auto trained = [](Model& model) {
    ForwardState state;
    const at::Tensor logits = model.forward(wavy_images(4, 16, at::kDouble), state);
    logits.square().sum().backward();
    return logits;
  };
  EXPECT_LT(largest_difference(trained(*skipping), trained(*silent)), 1e-12);
  const auto expected = silent->named_parameters();
  for (const auto& item : skipping->named_parameters()) {
    // The first query of a stage has no choice, hence no gradient.
    if (!item.value().requires_grad() || item.key() == "layer1.0.layer_attention.query") continue;
    EXPECT_LT(largest_difference(item.value().grad(), expected[item.key()].grad()), 1e-10)
        << item.key();
  }
}

TEST(SkipRetrieval, OfTheLastBlockOfAStageNeedsNoKeys) {
  const auto model = small_model("resnet20", "name = 'mrla_base'");
  Surgeon surgeon(*model);
  surgeon.apply(SkipRetrieval{1, SkipMode::Drop});
  const at::Tensor dropped = evaluated(*model);
  surgeon.apply(SkipRetrieval{1, SkipMode::KeepKeys});
  EXPECT_TRUE(at::equal(dropped, evaluated(*model)));
}

TEST(SkipRetrieval, DeletesWhatEachModeLeavesUnused) {
  const std::map<SkipMode, std::vector<std::string>> left{
      {SkipMode::KeepKeys, {"key", "value"}},
      {SkipMode::Reuse, {"norm.weight", "norm.bias"}},
  };
  for (const auto& [mode, names] : left) {
    const auto model = small_model("resnet20", "name = 'mrla_base'");
    Surgeon surgeon(*model);
    surgeon.apply(SkipRetrieval{3, mode});
    surgeon.apply_neutral({DeleteSkipped{3}});
    std::vector<std::string> present;
    for (const auto& item : model->layer_sites()[3]->layer_attention()->named_parameters()) {
      present.push_back(item.key());
    }
    EXPECT_EQ(present, names);
    EXPECT_THROW(surgeon.apply(SkipRetrieval{3, SkipMode::None}), Error);
    EXPECT_THROW(surgeon.apply(DeleteSkipped{3}), Error);
    const std::vector<Edit> edits{SkipRetrieval{3, mode}, DeleteSkipped{3}};
    EXPECT_EQ(surgeon.edits(), edits);
  }
}

TEST(SkipRetrieval, IsRefusedWhereItMeansNothing) {
  const auto base = small_model("resnet20", "name = 'mrla_base'");
  const auto light = small_model("resnet20", "name = 'mrla_light'");
  Surgeon softmax(*base), gated(*light);
  const auto refusal = [](Surgeon& surgeon, const Edit& edit) {
    return test::message_of<Error>([&] { surgeon.apply(edit); });
  };
  EXPECT_NE(refusal(softmax, SkipRetrieval{2, SkipMode::Drop}).find("first block"),
            std::string::npos);
  EXPECT_NE(refusal(softmax, SkipRetrieval{1, SkipMode::None}).find("already"), std::string::npos);
  EXPECT_NE(refusal(gated, SkipRetrieval{1, SkipMode::Recur}).find("no such form"),
            std::string::npos);
  EXPECT_NE(refusal(softmax, DeleteSkipped{1}).find("not skipped"), std::string::npos);
  softmax.apply(SkipRetrieval{1, SkipMode::Recur});
  EXPECT_NE(refusal(softmax, DeleteSkipped{1}).find("nothing"), std::string::npos);
  EXPECT_NE(refusal(softmax, SkipRetrieval{6, SkipMode::Drop}).find("0 to 5"), std::string::npos);
}

TEST(RetrievalRecord, OfAPassWithSkipsShowsWhatFullRetrievalsWouldBe) {
  const auto model = small_model("vit", "name = 'mrla_base'\ngroup = 5");
  Surgeon surgeon(*model);
  const auto record_of = [&](bool shadow) {
    ForwardState state;
    RetrievalRecord record{.shadow = shadow, .retrievals = {}};
    state.retrievals = &record;
    const at::Tensor logits = evaluated(*model, state);
    EXPECT_TRUE(at::equal(logits, evaluated(*model)));
    return record.retrievals;
  };
  using Rows = std::vector<std::pair<int, std::int64_t>>;
  const auto rows = [&] {
    Rows result;
    for (const Retrieval& retrieval : record_of(false)) {
      result.emplace_back(retrieval.block, retrieval.log_row.size(2));
    }
    return result;
  };
  EXPECT_EQ(rows(), (Rows{{0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 5}}));
  // As long as nothing is skipped, rows are those of queries against keys.
  const std::vector<Retrieval> own = record_of(false), shadow = record_of(true);
  ASSERT_EQ(shadow.size(), 5U);
  for (std::size_t t = 0; t < 5; ++t) {
    std::vector<at::Tensor> logits;
    for (std::size_t i = 0; i <= t; ++i) logits.push_back((shadow[t].query * shadow[i].key).sum(2));
    const double scale = std::sqrt(static_cast<double>(shadow[t].key.size(2)));
    const at::Tensor row = (at::stack(logits, 2) / scale).log_softmax(2);
    EXPECT_LT(largest_difference(row, own[t].log_row), 1e-5) << t;
  }
  surgeon.apply(SkipRetrieval{1, SkipMode::Drop});
  surgeon.apply(SkipRetrieval{3, SkipMode::KeepKeys});
  EXPECT_EQ(rows(), (Rows{{0, 1}, {2, 2}, {4, 4}}));
  const std::vector<Retrieval> skipping = record_of(true);
  ASSERT_EQ(skipping.size(), 5U);
  for (std::size_t t = 0; t < 5; ++t) EXPECT_EQ(skipping[t].block, static_cast<int>(t));
  // The first block does not know of later ones.
  EXPECT_TRUE(at::equal(skipping[0].key, shadow[0].key));
}

TEST(LayerMethod, RefusesStagesAndHeadsThatAreNotThere) {
  const auto model = make_model("resnet20", "image_size = 16", 4);
  const auto refusal = [&](const std::string& method) {
    return test::message_of<SpecError>([&] { apply_methods(*model, {method}); });
  };
  EXPECT_NE(refusal("name = 'mrla_base'\nstages = [1, 3]").find("stages 0 to 2"),
            std::string::npos);
  EXPECT_NE(refusal("name = 'mrla_base'\nhead_dim = 48").find("does not divide the 64"),
            std::string::npos);
}

}  // namespace
}  // namespace ablate
