#include "methods/nose_search.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "methods/entropy_profile.h"
#include "methods/transfer_entropy.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/random.h"

namespace ablate::methods::nose {
namespace {

/// Skips the attention branches of some blocks (x <- x) while it lives. A measurement, not an edit:
/// nothing is recorded, hence not done through the Surgeon.
class SkippedBranches {
 public:
  SkippedBranches(const std::vector<Block*>& blocks, const std::vector<int>& skipped) {
    for (const int i : skipped) {
      Block* block = blocks[static_cast<std::size_t>(i)];
      restore_.emplace_back(block, block->attention_gains());
      block->set_attention_gains({.skip = 1.0, .branch = 0.0});
    }
  }
  ~SkippedBranches() {
    for (auto& [block, gains] : restore_) block->set_attention_gains(gains);
  }
  SkippedBranches(const SkippedBranches&) = delete;
  SkippedBranches& operator=(const SkippedBranches&) = delete;

 private:
  std::vector<std::pair<Block*, ResidualGains>> restore_;
};

/// Of a dense model every place counts as a sample. A reconstruction: the paper speaks of
/// classifiers.
void add_rows(GaussianEntropy& statistics, const at::Tensor& output, const at::Tensor& weights) {
  if (output.dim() == 2) return statistics.add(output, weights);
  const std::int64_t places = output.size(2) * output.size(3);
  statistics.add(output.permute({0, 2, 3, 1}).flatten(0, 2), weights.repeat_interleave(places));
}

double measure_entropy(TrainContext& context, const Selection& selection) {
  Model& model = context.surgeon().model();
  GaussianEntropy statistics;
  context.visit(
      selection.split, selection.samples, [&](const at::Tensor& images, const at::Tensor& weights) {
        ForwardState state;
        add_rows(statistics,
                 selection.readout == Readout::Logits ? model.forward(images, state)
                                                      : model.forward_features(images, state),
                 weights);
      });
  statistics.reduce(context.communicator(), model.parameters().front().device());
  return selection.readout == Readout::Logits ? statistics.entropy(true, 2.0)
                                              : statistics.entropy(false, std::numbers::e);
}

}  // namespace

std::vector<int> removable_blocks(const std::vector<Block*>& blocks, std::int64_t remove) {
  std::vector<int> candidates;
  std::int64_t needed = 0;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (!blocks[i]->mixer()) continue;
    const TokenReducer* reducer = blocks[i]->reducer();
    if (reducer && needs_own_mixer(reducer->key_need())) {
      ++needed;
    } else {
      candidates.push_back(static_cast<int>(i));
    }
  }
  const auto free = static_cast<std::int64_t>(candidates.size());
  // Without any attention the class token sees nothing, and its entropy is minus infinity.
  if (remove <= free && remove < free + needed) return candidates;
  throw SpecError(cat("methods.nose.remove: ", remove, " layers to remove, but the model has ",
                      free + needed, " attention layers, of which ",
                      needed == 0 ? std::string("one must stay")
                                  : cat(needed, " give their keys to token reducers")));
}

namespace {

/// The search of one run.
class LayerSearch {
 public:
  LayerSearch(TrainContext& context, const Selection& selection)
      : context_(context),
        selection_(selection),
        blocks_(context.surgeon().model().blocks()),
        candidates_(removable_blocks(blocks_, selection.remove)) {}

  std::vector<int> run() {
    const auto count = static_cast<std::ptrdiff_t>(selection_.remove);
    std::vector<int> layers = candidates_;
    switch (selection_.strategy) {
      case Strategy::Nose:
        return greedy();
      case Strategy::Random:
        layers = shuffled();
        break;
      case Strategy::First:
        break;
      case Strategy::Last:
        std::ranges::reverse(layers);
        break;
      case Strategy::LowestEntropy:
        sort_by(layers, own_entropies());
        break;
      case Strategy::OneShot:
        sort_by(layers, lone_transfer_entropies());
        break;
      case Strategy::Exhaustive:
        return best_set();
    }
    layers.resize(static_cast<std::size_t>(count));
    std::ranges::sort(layers);
    return layers;
  }

  double transfer_entropy(const std::vector<int>& skipped) {
    return entropy({}) - entropy(skipped);
  }

  /// What has been measured: sets and their transfer entropies; the steps of a greedy search.
  nlohmann::json record() {
    nlohmann::json measured = nlohmann::json::array();
    for (const auto& [skipped, value] : entropies_) {
      if (!skipped.empty()) measured.push_back({skipped, entropy({}) - value});
    }
    return {{"selection", kStrategies[static_cast<std::size_t>(selection_.strategy)]},
            {"measured", measured},
            {"steps", steps_}};
  }

 private:
  /// Each set is measured once.
  double entropy(const std::vector<int>& skipped) {
    const auto known = entropies_.find(skipped);
    if (known != entropies_.end()) return known->second;
    const SkippedBranches guard(blocks_, skipped);
    return entropies_[skipped] = measure_entropy(context_, selection_);
  }

  double rank(double transfer_entropy) const {
    return selection_.absolute ? std::abs(transfer_entropy) : transfer_entropy;
  }

  std::vector<int> greedy() {
    const auto steps =
        select_layers(candidates_, static_cast<int>(selection_.remove), selection_.absolute,
                      [this](const std::vector<int>& skipped) { return entropy(skipped); });
    std::vector<int> layers;
    for (const SelectionStep& step : steps) {
      layers.push_back(step.chosen);
      context_.metric(cat("nose/te/", step.chosen), step.transfer_entropy);
      steps_.push_back({{"chosen", step.chosen},
                        {"transfer_entropy", step.transfer_entropy},
                        {"tried", step.tried}});
    }
    std::ranges::sort(layers);
    return layers;
  }

  std::vector<int> shuffled() const {
    const Permutation order(candidates_.size(), context_.seed(), Purpose::Method,
                            hash64(cat("nose.selection.", selection_.draw)));
    std::vector<int> layers;
    for (std::size_t i = 0; i < candidates_.size(); ++i) layers.push_back(candidates_[order(i)]);
    return layers;
  }

  using Ranks = std::map<int, double>;
  static void sort_by(std::vector<int>& layers, const Ranks& ranks) {
    std::ranges::stable_sort(layers, {}, [&](int layer) { return ranks.at(layer); });
  }

  Ranks lone_transfer_entropies() {
    Ranks ranks;
    for (const int layer : candidates_) ranks[layer] = rank(transfer_entropy({layer}));
    return ranks;
  }

  Ranks own_entropies() {
    std::map<std::string, int> layers;
    for (const int layer : candidates_) {
      layers[blocks_[static_cast<std::size_t>(layer)]->block_name() + ".attn"] = layer;
    }
    std::vector<std::string> taps;
    for (const auto& [tap, layer] : layers) taps.push_back(tap);
    EntropyProfile profile(taps);
    Model& model = context_.surgeon().model();
    context_.visit(selection_.split, selection_.samples,
                   [&](const at::Tensor& images, const at::Tensor& weights) {
                     profile.add(model, images, weights);
                   });
    profile.reduce(context_.communicator(), model.parameters().front().device());
    Ranks ranks;
    for (const auto& [tap, entropy] : profile.entropies()) {
      ranks[layers.at(tap)] = entropy;
      context_.metric(cat("nose/own_entropy/", layers.at(tap)), entropy);
    }
    return ranks;
  }

  std::vector<int> best_set() {
    const int count = static_cast<int>(selection_.remove);
    std::vector<int> best;
    double least = 0;
    for_each_subset(candidates_, count, [&](const std::vector<int>& layers) {
      const double value = rank(transfer_entropy(layers));
      if (!best.empty() && value >= least) return;
      best = layers;
      least = value;
    });
    return best;
  }

  TrainContext& context_;
  const Selection& selection_;
  std::vector<Block*> blocks_;
  std::vector<int> candidates_;
  std::map<std::vector<int>, double> entropies_;  // by sorted set
  nlohmann::json steps_ = nlohmann::json::array();
};

}  // namespace

const std::vector<std::string> kStrategies{"nose",           "random",   "first",     "last",
                                           "lowest_entropy", "one_shot", "exhaustive"};

std::vector<std::int64_t> search(TrainContext& context, const Selection& selection) {
  LayerSearch search(context, selection);
  const std::vector<int> layers = search.run();
  const double transfer_entropy = search.transfer_entropy(layers);
  context.metric("nose/te_set", transfer_entropy);
  nlohmann::json record = search.record();
  record["layers"] = layers;
  record["transfer_entropy"] = transfer_entropy;
  context.event("nose_selection", record);
  return {layers.begin(), layers.end()};
}

}  // namespace ablate::methods::nose
