#include <algorithm>
#include <array>

#include "methods/channel_pruning.h"

namespace ablate::methods::channel_pruning {
namespace {

constexpr double kShare = 0.999;  // a target that removes nothing is refused

template <typename Kind>
Kind read_kind(Params& params, std::string_view key, std::string_view standard,
               const std::vector<std::string>& names, std::string_view help) {
  const std::string name = params.choice(key, standard, names, help);
  return static_cast<Kind>(std::ranges::find(names, name) - names.begin());
}

void read_groups(Params& params, Settings& s) {
  s.qk = params.boolean("qk", true, "prune queries and keys");
  s.v = params.boolean("v", true, "prune values");
  s.mlp = params.boolean("mlp", true, "prune the hidden layer of MLPs");
  s.tie_qkv = params.boolean("tie_qkv", false, "one decision for queries, keys and values");
  s.tie_v_index =
      params.boolean("tie_v_index", false, "every head keeps the same channels of its values");
  if (!s.qk && !s.v && !s.mlp) params.fail("mlp", "nothing to prune: set qk, v or mlp to true");
  if (s.tie_qkv && !(s.qk && s.v)) params.fail("tie_qkv", "needs qk = true and v = true");
  if (s.tie_qkv && s.tie_v_index) params.fail("tie_v_index", "does not go with tie_qkv");
}

void read_search(Params& params, Settings& s) {
  s.search_epochs = params.number("search_epochs", 0.0, 0.0, 1e6,
                                  "epochs of learning what to remove; 0: a tenth of the run");
  s.lambda = params.number("lambda", 30.0, 0.0, 1e9, "weight of the budget's penalty");
  s.budget_loss = read_kind<BudgetLoss>(
      params, "budget_loss", "squared", {"squared", "one_sided", "absolute", "gmacs"},
      "penalty on e = cost / aimed at - 1: e^2, max(0, e)^2, |e|, or the squared excess in 10^9 "
      "multiply-accumulates");
  s.ramp = params.number("ramp", 0.5, 0.0, 1.0,
                         "share of the search over which what is aimed at falls to the target");
  s.similarity = SimilarityForm::read(params);
  s.similarity_every =
      params.integer("similarity_every", 100, 1, 1'000'000, "steps between new similarities");
  s.similarity_decay = params.number("similarity_decay", 0.9, 0.0, 1.0,
                                     "share of the old ones in their moving average");
  s.start = read_kind<Start>(
      params, "init", "attention",
      {"attention", "single_channel", "constant", "random", "magnitude"},
      "scores at the start, 0.8 to 1.2 by rank in a head: how far the attention map moves without "
      "the channel, or how near the channel alone comes to it; or 1; or at random; or by weights");
  s.start_everywhere = params.boolean(
      "init_everywhere", false, "not in linear attention alone (elsewhere scores start as 1)");
}

/// The part of the settings that the edit AttachGates repeats.
Value gate_settings(const Params& params) {
  Value::Table table;
  for (const char* key : {"threshold", "head_balance", "step_gradient", "temperature", "min_share",
                          "width_multiple", "lr_factor"}) {
    table[key] = *params.resolved().find(key);
  }
  return table;
}

}  // namespace

Settings Settings::read(Params& params) {
  Settings s;
  s.target = params.required_number("target", 0.001, kShare,
                                    "multiply-accumulates to be left, over those of the model "
                                    "before");
  s.criterion = read_kind<Criterion>(
      params, "criterion", "indicator", {"indicator", "magnitude", "taylor", "random"},
      "what decides: learned scores; or, before training, weights, first-order Taylor importance, "
      "or chance");
  s.allocation = read_kind<Allocation>(
      params, "allocation", "global", {"global", "uniform"},
      "spread of the budget: by score over all layers, or the same share everywhere");
  read_groups(params, s);
  s.rule = GateRule::read(params);
  params.number("lr_factor", 1.0, 0.0, 1e6, "learning rate of scores over that of the weights");
  s.gate_params = gate_settings(params);
  read_search(params, s);
  s.reweighting = read_kind<Reweighting>(params, "reweight", "dynamic",
                                         {"none", "dynamic", "static", "head", "least_squares"},
                                         "makes up for removed values: factors from the mean "
                                         "token, one factor a channel or a head, or "
                                         "a correction of the projection at the cut");
  s.split = params.choice("decide_on", "train", {"train", "holdout"},
                          "which data statistics are taken from; never the test set") == "train"
                ? DecisionSplit::Train
                : DecisionSplit::Holdout;
  s.samples = params.integer("samples", 1024, 1, 1'000'000'000, "images that statistics look at");
  if (s.criterion != Criterion::Indicator && s.search_epochs > 0) {
    params.fail("search_epochs", "there is no search with this criterion; leave it out");
  }
  return s;
}

}  // namespace ablate::methods::channel_pruning
