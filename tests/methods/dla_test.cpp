#include "methods/dla.h"

#include <cmath>

#include <gtest/gtest.h>

#include "methods/models/layer_maps.h"
#include "runner/core/params.h"
#include "tests/methods/mrla_support.h"
#include "tests/methods/published_sizes.h"

// Dynamic layer attention (Wang et al., IJCAI 2024) and DIANet (Huang et al., AAAI 2020) against
// their formulas, written out map by map.

namespace ablate {
namespace {

using test::largest_difference;
using test::make_model;
using test::wavy_maps;

constexpr std::int64_t kChannels = 8, kHeadDim = 4;

/// Modules of a registered kind for the blocks of one stage, in double.
std::vector<std::shared_ptr<LayerAttention>> make_stage(const char* kind, int blocks,
                                                        const char* settings) {
  const Value table = parse_toml(settings, "test");
  Params params(table, "test");
  std::vector<LayerPlace> places;
  for (int i = 0; i < blocks; ++i) {
    places.push_back({.name = cat("b", i), .channels = kChannels});
  }
  auto modules = Registry<LayerAttentionInfo>::get(kind).make(params, places);
  for (int i = 0; i < blocks; ++i) {
    LayerAttention& module = *modules[static_cast<std::size_t>(i)];
    module.set_numbers(i, 0);
    module.initialize(5, cat("b", i));
    module.to(at::kDouble);
    module.eval();
  }
  return modules;
}

struct Outputs {
  std::vector<at::Tensor> given, retrieved;  ///< what forward() returns, and what is retrieved
};

Outputs run_stage(const std::vector<std::shared_ptr<LayerAttention>>& modules,
                  const std::vector<at::Tensor>& maps,
                  const std::vector<at::Tensor>& previous = {}) {
  ForwardState state;
  state.layer_history = std::make_shared<LayerHistory>();
  Outputs outputs;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    outputs.given.push_back(
        modules[i]->forward(maps[i], previous.empty() ? at::Tensor() : previous[i], state));
    outputs.retrieved.push_back(state.layer_history->retrieved);
  }
  return outputs;
}

at::Tensor parameter(const LayerAttention& module, const std::string& name) {
  return module.named_parameters()[name].detach();
}

/// The cell of the first module, with its state.
class Cell {
 public:
  Cell(const LayerAttention& owner, const std::string& name, std::int64_t batch)
      : owner_(owner),
        name_(name),
        hidden(at::zeros({batch, kChannels}, at::kDouble)),
        cell(at::zeros({batch, kChannels}, at::kDouble)) {}

  std::vector<at::Tensor> gates(const at::Tensor& y, std::int64_t count) const {
    return (bottleneck("input", y) + bottleneck("hidden", hidden)).chunk(count, 1);
  }
  /// Next cell state of the sharing unit.
  at::Tensor next(const at::Tensor& y) const {
    const auto g = gates(y, 3);
    return g[1].sigmoid() * cell + g[0].sigmoid() * g[2].tanh();
  }
  at::Tensor context(const at::Tensor& y) const { return next(y).sigmoid(); }
  void advance(const at::Tensor& y) {
    cell = next(y);
    hidden = cell.sigmoid();
  }

 private:
  at::Tensor bottleneck(const char* side, const at::Tensor& y) const {
    const auto layer = [&](int i, const at::Tensor& x) {
      const std::string prefix = cat(name_, ".", side, i);
      return at::linear(x, parameter(owner_, prefix + ".weight"),
                        parameter(owner_, prefix + ".bias"));
    };
    return layer(1, layer(0, y).relu());
  }

  const LayerAttention& owner_;
  std::string name_;

 public:
  at::Tensor hidden, cell;
};

at::Tensor mean_of(const at::Tensor& map) { return map.mean({2, 3}); }
at::Tensor on_map(const at::Tensor& factors) { return factors.unsqueeze(2).unsqueeze(3); }
at::Tensor conv_of(const LayerAttention& module, const char* name, const at::Tensor& y) {
  return channel_convs(y, {parameter(module, name)}).front();
}
at::Tensor value_of(const LayerAttention& module, const at::Tensor& map) {
  return at::conv2d(map, parameter(module, "value"), {}, 1, 1, 1, kChannels);
}
at::Tensor head_logits(const at::Tensor& query, const at::Tensor& key) {
  return (query * key).view({query.size(0), -1, kHeadDim}).sum(2) / 2.0;
}

constexpr const char* kSettings = "head_dim = 4\ndrop_path = 0.0\nreduction = 2";

TEST(DlaBase, RefreshesKeysAndValuesBeforeItRetrieves) {
  constexpr int kBlocks = 4;
  const auto modules = make_stage("dla_base", kBlocks, kSettings);
  const auto maps = wavy_maps(kBlocks, 3, kChannels, 5);
  const Outputs outputs = run_stage(modules, maps);
  Cell cell(*modules[0], "unit", 3);
  std::vector<at::Tensor> keys, values;
  for (std::size_t t = 0; t < kBlocks; ++t) {
    const at::Tensor y = mean_of(maps[t]), query = conv_of(*modules[t], "query", y);
    cell.advance(y);
    for (std::size_t i = 0; i < t; ++i) {
      keys[i] = keys[i] * cell.context(keys[i]);
      values[i] = values[i] * on_map(cell.context(mean_of(values[i])));
    }
    keys.push_back(conv_of(*modules[t], "key", y));
    values.push_back(value_of(*modules[t], maps[t]));
    std::vector<at::Tensor> logits;
    for (const at::Tensor& key : keys) logits.push_back(head_logits(query, key));
    const at::Tensor row = at::softmax(at::stack(logits, 2), 2);
    at::Tensor expected = at::zeros_like(maps[t]);
    for (std::size_t i = 0; i <= t; ++i) {
      const at::Tensor weight = row.select(2, static_cast<std::int64_t>(i));
      expected += values[i] * on_map(weight.repeat_interleave(kHeadDim, 1));
    }
    EXPECT_LT(largest_difference(outputs.retrieved[t], expected), 1e-13) << t;
  }
}

TEST(DlaLight, RefreshesWhatTheShortcutBrings) {
  constexpr int kBlocks = 3;
  const auto modules = make_stage("dla_light", kBlocks, kSettings);
  const auto maps = wavy_maps(kBlocks, 3, kChannels, 5);
  const std::vector<at::Tensor> previous{maps[2].cos(), maps[0].cos(), maps[1].cos()};
  const Outputs outputs = run_stage(modules, maps, previous);
  Cell cell(*modules[0], "unit", 3);
  for (std::size_t t = 0; t < kBlocks; ++t) {
    const LayerAttention& module = *modules[t];
    const at::Tensor y = mean_of(maps[t]);
    cell.advance(y);
    const at::Tensor mixed =
        at::conv2d(previous[t], parameter(*modules[0], "unit.mix"), {}, 1, 1, 1, kChannels);
    const at::Tensor o = previous[t] * on_map(cell.context(mean_of(previous[t]))) + mixed;
    const at::Tensor gate =
        head_logits(conv_of(module, "query", y), conv_of(module, "key", y)).sigmoid();
    const at::Tensor expected =
        value_of(module, maps[t]) * on_map(gate.repeat_interleave(kHeadDim, 1)) +
        o * parameter(module, "gain");
    EXPECT_LT(largest_difference(outputs.retrieved[t], expected), 1e-13) << t;
  }
}

TEST(DiaNet, ScalesBranchesByTheHiddenStateOfOneCell) {
  const auto modules = make_stage("dianet", 3, "reduction = 2");
  const auto maps = wavy_maps(3, 4, kChannels, 5);
  const Outputs outputs = run_stage(modules, maps);
  Cell cell(*modules[0], "cell", 4);
  for (std::size_t t = 0; t < 3; ++t) {
    const auto gates = cell.gates(mean_of(maps[t]), 4);
    cell.cell = gates[1].sigmoid() * cell.cell + gates[0].sigmoid() * gates[3].tanh();
    cell.hidden = gates[2].sigmoid() * cell.cell.sigmoid();
    EXPECT_LT(largest_difference(outputs.given[t], maps[t] * on_map(cell.hidden)), 1e-14) << t;
  }
}

// One unit a stage, and nothing of it where a block is not the first.
TEST(SharedCells, BelongToTheFirstBlockOfAStage) {
  for (const char* method : {"dla_base", "dla_light", "dianet"}) {
    const auto model = make_model("resnet20", "image_size = 16", 4);
    model->initialize(1);
    test::apply_methods(*model, {cat("name = '", method, "'")});
    int shared = 0;
    for (const auto& item : model->named_parameters()) {
      if (!item.key().ends_with(".input0.weight")) continue;
      ++shared;
      EXPECT_NE(item.key().find(".0.layer_attention."), std::string::npos) << item.key();
    }
    EXPECT_EQ(shared, 3);
  }
}

// In evaluation the answer to an image is its own; the public code takes the state of the first.
TEST(SharedCells, LeaveSamplesToThemselves) {
  for (const char* method : {"dla_base", "dla_light", "dianet"}) {
    const auto model = make_model("resnet20", "image_size = 16", 4);
    model->initialize(1);
    test::apply_methods(*model, {cat("name = '", method, "'")});
    model->to(at::kDouble);
    model->eval();
    at::Tensor images = test::wavy_images(3, 16, at::kDouble).clone();
    const at::Tensor before = test::logits_of(*model, images);
    images[0].mul_(-2.0).add_(0.3);
    const at::Tensor after = test::logits_of(*model, images);
    EXPECT_LT(largest_difference(before.narrow(0, 1, 2), after.narrow(0, 1, 2)), 1e-12) << method;
    EXPECT_GT(largest_difference(before[0], after[0]), 1e-4) << method;
  }
}

// Counted on the public models of dynamic layer attention, 32 x 32. When these refresh, they show
// the cell the hidden state of one sample in place of the batch's, which hardly counts. Per sample,
// what the cell makes of a state takes C^2 once for each of the n + 1 states of a stage, and the
// count knows n of them.
constexpr test::PublishedSize kSizes[] = {
    {"resnet20", "dla_base", 10, 405'230, 36.33},
    {"resnet56", "dla_base", 10, 795'990, 97.06},
    {"resnet110", "dla_base", 10, 1'382'130, 193.36},
    {"resnet20", "dla_light", 10, 410'158, 38.39},
    {"resnet56", "dla_light", 10, 802'710, 101.18},
    {"resnet110", "dla_light", 10, 1'391'538, 195.36},
    {"resnet20", "dla_base", 100, 428'360},
    {"resnet56", "dla_base", 100, 819'120},
    {"resnet110", "dla_base", 100, 1'405'260},
    {"resnet20", "dla_light", 100, 433'288},
    {"resnet56", "dla_light", 100, 825'840},
    {"resnet110", "dla_light", 100, 1'414'668},
    {"resnet20", "dianet", 10, 439'226},
    {"resnet56", "dianet", 10, 810'170},
    {"resnet110", "dianet", 10, 1'366'586},
    {"resnet20", "dianet", 100, 462'356},
    {"resnet56", "dianet", 100, 833'300},
    {"resnet110", "dianet", 100, 1'389'716},
};

TEST(SharedCells, HaveThePublishedSizes) {
  test::expect_published_sizes(kSizes, [](const test::PublishedSize& row, double mega_macs) {
    constexpr double kLastStates = (64.0 * 64.0 + 128.0 * 128.0 + 256.0 * 256.0) / 1e6;
    EXPECT_LT(mega_macs - kLastStates, row.mega_macs + 0.005);
    EXPECT_GT(mega_macs - kLastStates, row.mega_macs * (1 - 4e-4));
  });
}

}  // namespace
}  // namespace ablate
