#include "methods/nose_search.h"

#include <algorithm>
#include <numbers>

#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "methods/transfer_entropy.h"
#include "runner/core/error.h"

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

double measure_entropy(TrainContext& context, const Selection& selection) {
  Model& model = context.surgeon().model();
  GaussianEntropy statistics;
  context.visit(
      selection.split, selection.samples, [&](const at::Tensor& images, const at::Tensor& weights) {
        ForwardState state;
        statistics.add(selection.readout == Readout::Logits ? model.forward(images, state)
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
    if (reducer && reducer->key_need() == KeyNeed::OwnBlock) {
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

std::vector<std::int64_t> search(TrainContext& context, const Selection& selection) {
  const std::vector<Block*> blocks = context.surgeon().model().blocks();
  const std::vector<int> candidates = removable_blocks(blocks, selection.remove);
  const auto steps = select_layers(candidates, static_cast<int>(selection.remove),
                                   selection.absolute, [&](const std::vector<int>& skipped) {
                                     const SkippedBranches guard(blocks, skipped);
                                     return measure_entropy(context, selection);
                                   });
  std::vector<std::int64_t> layers;
  nlohmann::json record = nlohmann::json::array();
  for (const SelectionStep& step : steps) {
    layers.push_back(step.chosen);
    context.metric(cat("nose/te/", step.chosen), step.transfer_entropy);
    record.push_back({{"chosen", step.chosen},
                      {"transfer_entropy", step.transfer_entropy},
                      {"tried", step.tried}});
  }
  context.event("nose_selection", {{"steps", std::move(record)}});
  std::ranges::sort(layers);
  return layers;
}

}  // namespace ablate::methods::nose
