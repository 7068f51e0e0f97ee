#include <algorithm>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/methods/nose_support.h"
#include "tests/support/run_ranks.h"

// Ways to choose layers that the search of NOSE is held against.

namespace ablate {
namespace {

using test::golden_batches;
using test::make_nose;
using test::MethodContext;

/// Six blocks of the golden shape.
std::shared_ptr<Model> deep_vit() {
  auto model = test::make_model(
      "vit", "image_size = 32\npatch_size = 8\nembed_dim = 12\nnum_heads = 2\ndepth = 6", 5);
  model->initialize(3);
  model->to(at::kDouble);
  model->eval();
  const at::NoGradGuard no_grad;
  for (auto& item : model->named_parameters()) {
    if (item.value().dim() > 1) item.value().mul_(8.0);  // far from linear
  }
  return model;
}

/// What one selection chose and reported.
struct Chosen {
  std::vector<int> layers;
  nlohmann::json record;
  std::map<std::string, std::vector<double>> metrics;
  std::size_t visits;
};

Chosen choose(const std::string& settings, std::shared_ptr<Model> model = deep_vit(),
              Communicator* communicator = nullptr) {
  auto context = communicator ? std::make_unique<MethodContext>(*model, *communicator)
                              : std::make_unique<MethodContext>(*model);
  context->batches = golden_batches();
  make_nose(settings).apply(*context);
  Chosen chosen{
      .layers = {}, .record = {}, .metrics = context->metrics, .visits = context->visited.size()};
  for (std::size_t i = 0; i < model->blocks().size(); ++i) {
    if (!model->blocks()[i]->mixer()) chosen.layers.push_back(static_cast<int>(i));
  }
  for (const auto& [kind, body] : context->events) {
    if (kind == "nose_selection") chosen.record = body;
  }
  return chosen;
}

/// Entropy of the class head with the attention of some blocks passed by, in one pass.
double entropy_without(const std::vector<int>& skipped) {
  const at::NoGradGuard no_grad;
  const auto model = deep_vit();
  for (const int block : skipped) {
    model->blocks()[static_cast<std::size_t>(block)]->set_attention_gains({1, 0});
  }
  ForwardState state;
  const at::Tensor images = test::wavy_images(25, 32, at::kDouble).narrow(0, 0, 24);
  return model->forward(images, state).std(0, true).log2().sum().item<double>();
}

double transfer_entropy(const std::vector<int>& skipped) {
  return entropy_without({}) - entropy_without(skipped);
}

TEST(NoseSelection, TakesTheFirstOrTheLast) {
  EXPECT_EQ(choose("remove = 2\nselection = 'first'").layers, (std::vector<int>{0, 1}));
  EXPECT_EQ(choose("remove = 2\nselection = 'last'").layers, (std::vector<int>{4, 5}));
  EXPECT_EQ(choose("remove = 2\nselection = 'last'").visits, 2U);
}

TEST(NoseSelection, ReportsTheTransferEntropyOfTheSet) {
  for (const char* selection :
       {"nose", "random", "first", "last", "lowest_entropy", "one_shot", "exhaustive"}) {
    const Chosen chosen = choose(cat("remove = 2\nselection = '", selection, "'"));
    ASSERT_EQ(chosen.layers.size(), 2U) << selection;
    EXPECT_EQ(chosen.record.at("layers").get<std::vector<int>>(), chosen.layers);
    EXPECT_EQ(chosen.record.at("selection"), selection);
    ASSERT_EQ(chosen.metrics.at("nose/te_set").size(), 1U);
    EXPECT_NEAR(chosen.metrics.at("nose/te_set")[0], transfer_entropy(chosen.layers), 1e-9)
        << selection;
  }
}

TEST(NoseSelection, OneShotTakesTheLeastOfEachAlone) {
  std::vector<std::pair<double, int>> alone;
  for (int layer = 0; layer < 6; ++layer) alone.emplace_back(transfer_entropy({layer}), layer);
  std::ranges::sort(alone);
  std::vector<int> expected{alone[0].second, alone[1].second, alone[2].second};
  std::ranges::sort(expected);
  const Chosen chosen = choose("remove = 3\nselection = 'one_shot'");
  EXPECT_EQ(chosen.layers, expected);
  EXPECT_EQ(chosen.visits, 8U) << "nothing skipped, each layer, the set";
}

TEST(NoseSelection, ExhaustiveFindsTheLeastOfAllSets) {
  for (const bool absolute : {false, true}) {
    std::vector<int> best;
    double least = 0;
    for (int a = 0; a < 6; ++a) {
      for (int b = a + 1; b < 6; ++b) {
        const double te = transfer_entropy({a, b});
        const double rank = absolute ? std::abs(te) : te;
        if (!best.empty() && rank >= least) continue;
        least = rank;
        best = {a, b};
      }
    }
    const Chosen chosen = choose(cat("remove = 2\nselection = 'exhaustive'\ntransfer_entropy = '",
                                     absolute ? "absolute" : "signed", "'"));
    EXPECT_EQ(chosen.layers, best);
    EXPECT_EQ(chosen.visits, 16U) << "15 sets and nothing skipped";
    EXPECT_EQ(chosen.record.at("measured").size(), 15U);
  }
}

// The own entropy of a layer: its output over images and tokens, sum of ln sigma.
TEST(NoseSelection, LowestEntropyLooksAtWhatLayersWrite) {
  const auto model = deep_vit();
  ForwardState state;
  for (int layer = 0; layer < 6; ++layer) state.taps[cat("blocks.", layer, ".attn")];
  {
    const at::NoGradGuard no_grad;
    model->forward(test::wavy_images(25, 32, at::kDouble).narrow(0, 0, 24), state);
  }
  std::vector<std::pair<double, int>> own;
  const Chosen chosen = choose("remove = 2\nselection = 'lowest_entropy'");
  for (int layer = 0; layer < 6; ++layer) {
    const at::Tensor output = state.taps[cat("blocks.", layer, ".attn")].flatten(0, 1);
    own.emplace_back(output.std(0, false).log().sum().item<double>(), layer);
    EXPECT_NEAR(chosen.metrics.at(cat("nose/own_entropy/", layer)).at(0), own.back().first, 1e-9);
  }
  std::ranges::sort(own);
  std::vector<int> expected{own[0].second, own[1].second};
  std::ranges::sort(expected);
  EXPECT_EQ(chosen.layers, expected);
}

TEST(NoseSelection, DrawsRandomSets) {
  std::set<std::vector<int>> found;
  std::vector<int> counts(6, 0);
  for (int draw = 0; draw < 40; ++draw) {
    const std::string settings = cat("remove = 2\nselection = 'random'\nselection_draw = ", draw);
    const Chosen chosen = choose(settings);
    if (draw < 3) {
      EXPECT_EQ(choose(settings).layers, chosen.layers);
    }
    found.insert(chosen.layers);
    for (const int layer : chosen.layers) ++counts[static_cast<std::size_t>(layer)];
  }
  EXPECT_GT(found.size(), 8U) << "of 15";
  for (const int count : counts) EXPECT_GT(count, 3) << "13 expected";
}

TEST(NoseSelection, IsTheSameOnAllRanks) {
  for (const char* selection : {"random", "lowest_entropy", "exhaustive"}) {
    const std::string settings = cat("remove = 2\nselection = '", selection, "'");
    const std::vector<int> alone = choose(settings).layers;
    std::vector<std::vector<int>> found(2);
    test::run_ranks(2, [&](Communicator& world) {
      // Both ranks see all images: the same distribution, twice.
      found[static_cast<std::size_t>(world.rank())] = choose(settings, deep_vit(), &world).layers;
    });
    EXPECT_EQ(found[0], found[1]) << selection;
    EXPECT_EQ(found[0], alone) << selection;
  }
}

TEST(NoseSelection, LooksAtNoDataWhenLayersAreGiven) {
  const Chosen chosen = choose("layers = [1, 4]");
  EXPECT_EQ(chosen.layers, (std::vector<int>{1, 4}));
  EXPECT_EQ(chosen.visits, 0U);
}

TEST(NoseSelection, RefusesSettingsThatContradict) {
  const auto refusal = [](const char* settings) {
    return test::message_of<SpecError>(
        [&] { test::method_component(cat("name = 'nose'\n", settings)); });
  };
  EXPECT_NE(refusal("layers = [1]\nselection = 'first'").find("leave one of them out"),
            std::string::npos);
  EXPECT_NE(refusal("remove = 4\nselection = 'exhaustive'").find("at most 3"), std::string::npos);
  EXPECT_NE(refusal("remove = 1\nselection = 'best'").find("one_shot"), std::string::npos);
  EXPECT_NE(refusal("remove = 1\nmask = 'token'\ndirect = true").find("nothing is diluted"),
            std::string::npos);
}

}  // namespace
}  // namespace ablate
