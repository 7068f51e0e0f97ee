#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "methods/example_vit.h"
#include "methods/method.h"
#include "methods/nose_search.h"
#include "runner/core/error.h"
#include "runner/core/schedule.h"

namespace ablate::methods::nose {
namespace {

/// Entropy-based selection of attention layers and their dilution: the branch output is faded into
/// the identity, x <- (2 - lambda) x + lambda DropPath(attn(norm1 x)), with one scalar lambda that
/// falls from 1 to 0; at 0 norm1 and attention are deleted and the block doubles its input.
class Nose final : public Method {
 public:
  explicit Nose(Params& params);

  void check(const RunOutline& run) const override {
    if (selection_.layers.empty()) removable_blocks(run.base.blocks(), selection_.remove);
    check_layers(run.base);
    if (!direct_ && run.length.total_steps > 0) check_ends(run.length);
  }

  void apply(TrainContext& context) override {
    if (selection_.layers.empty()) selection_.layers = search(context, selection_);
    check_layers(context.surgeon().model());
    context.apply_neutral(each_layer<MarkRetiring>());
    if (direct_ || context.epochs() == 0) {
      lambda_ = 0.0;
      set_gains(context.surgeon(), lambda_);
      remove(context);
    } else {
      check_ends(context.length());
    }
  }

  void between_steps(TrainContext& context) override {
    if (removed_) return;
    const double lambda = lambda_at(context.length(), context.step());
    if (lambda == lambda_) return;
    lambda_ = lambda;
    context.metric("nose/lambda", lambda);
    set_gains(context.surgeon(), lambda);
    remove(context);
  }

  void finalize(Surgeon& surgeon) override {
    if (removed_) return;
    lambda_ = 0.0;
    set_gains(surgeon, lambda_);
    surgeon.apply_neutral(removals(surgeon.model()));
    removed_ = true;
  }

  bool settled() const override { return removed_; }

  nlohmann::json save() const override {
    return {{"layers", selection_.layers}, {"lambda", lambda_}, {"removed", removed_}};
  }

  void load(const nlohmann::json& state) override {
    selection_.layers = state.at("layers").get<std::vector<std::int64_t>>();
    lambda_ = state.at("lambda").get<double>();
    removed_ = state.at("removed").get<bool>();
  }

 private:
  void read_selection(Params& params);
  void read_mask(Params& params);

  /// Without dilution_epochs, lambda is 0 in the last quarter of the run, as it is for the last 101
  /// of the published 400 epochs.
  double lambda_at(const RunLength& run, std::int64_t step) const {
    FadeSettings settings = fade_;
    if (settings.epochs == 0) {
      const std::int64_t epochs = run.total_steps / run.steps_per_epoch;
      settings.epochs = std::max(1.0, std::floor(0.75 * static_cast<double>(epochs)));
    }
    return fade(settings, step, run.steps_per_epoch);
  }

  /// A run that ended under way would remove branches that still count.
  void check_ends(const RunLength& run) const {
    const double last = lambda_at(run, run.total_steps - 1);
    if (last == 0.0) return;
    throw SpecError(cat("methods.nose.dilution_epochs: lambda is still ", last,
                        " in the last step of ", run.total_steps / run.steps_per_epoch,
                        " epochs; dilute over fewer epochs, train longer, or set direct = true"));
  }

  /// Of the layer number `order` of those that go, where the mean over them is `lambda`: one that
  /// waits for those before it is at 1.
  double layer_lambda(double lambda, std::size_t order) const {
    if (!one_by_one_) return lambda;
    const double turns = (1.0 - lambda) * static_cast<double>(selection_.layers.size());
    return 1.0 - std::clamp(turns - static_cast<double>(order), 0.0, 1.0);
  }

  /// At lambda; without compensation the identity is not made up for the branch.
  ResidualGains gains(double lambda) const {
    const bool under_way = lambda > 0.0 && lambda < 1.0;
    return {.skip = compensation_ ? 2.0 - lambda : 1.0,
            .branch = lambda,
            .mask = under_way ? mask_ : GainMask::None};
  }

  void set_gains(Surgeon& surgeon, double lambda) const {
    const std::vector<Block*> blocks = surgeon.model().blocks();
    for (std::size_t i = 0; i < selection_.layers.size(); ++i) {
      const std::int64_t layer = selection_.layers[i];
      const Block& block = *blocks[static_cast<std::size_t>(layer)];
      const ResidualGains now = gains(layer_lambda(lambda, i));
      if (!block.mixer() || block.attention_gains() == now) continue;
      surgeon.apply(SetGains{static_cast<int>(layer), now.skip, now.branch, now.mask});
    }
  }

  template <typename Kind>
  std::vector<Edit> each_layer() const {
    std::vector<Edit> edits;
    for (const std::int64_t layer : selection_.layers) {
      edits.push_back(Kind{static_cast<int>(layer)});
    }
    return edits;
  }

  /// Of attention that is not computed any more, so that nothing moves when it goes.
  std::vector<Edit> removals(Model& model) const {
    const std::vector<Block*> blocks = model.blocks();
    std::vector<Edit> edits;
    for (const std::int64_t layer : selection_.layers) {
      const Block& block = *blocks[static_cast<std::size_t>(layer)];
      if (block.mixer() && block.attention_gains().branch == 0.0) {
        edits.push_back(RemoveMixer{static_cast<int>(layer)});
      }
    }
    return edits;
  }

  void remove(TrainContext& context) {
    const std::vector<Edit> edits = removals(context.surgeon().model());
    if (!edits.empty()) context.apply_neutral(edits);
    removed_ = lambda_ == 0.0;
  }

  void check_layers(Model& model) const {
    const std::vector<Block*> blocks = model.blocks();
    for (const std::int64_t layer : selection_.layers) {
      if (layer >= static_cast<std::int64_t>(blocks.size()) ||
          !blocks[static_cast<std::size_t>(layer)]->mixer()) {
        throw SpecError(cat("methods.nose.layers: block ", layer,
                            " has no attention to remove; blocks are 0 to ", blocks.size() - 1));
      }
    }
  }

  Selection selection_;
  bool direct_;
  bool compensation_;
  bool one_by_one_;
  GainMask mask_ = GainMask::None;
  FadeSettings fade_;
  double lambda_ = 1.0;
  bool removed_ = false;
};

Nose::Nose(Params& params) {
  constexpr std::int64_t kManyLayers = 10'000;
  selection_.layers = params.integers("layers", {}, 0, kManyLayers,
                                      "blocks that lose their attention; empty: searched");
  selection_.remove =
      params.integer("remove", static_cast<std::int64_t>(selection_.layers.size()), 0, kManyLayers,
                     "how many attention layers the search removes");
  if (selection_.remove == 0) {
    params.fail("remove", "nothing to remove: set remove = K, or layers = [...]");
  }
  if (!selection_.layers.empty() &&
      selection_.remove != static_cast<std::int64_t>(selection_.layers.size())) {
    params.fail("remove", "differs from the number of given layers; leave one of them out");
  }
  std::ranges::sort(selection_.layers);
  if (std::ranges::adjacent_find(selection_.layers) != selection_.layers.end()) {
    params.fail("layers", "names a block twice");
  }
  read_selection(params);
  selection_.readout = params.choice("readout", "logits", {"logits", "features"},
                                     "where the search measures entropy: class head, or class "
                                     "token after the final norm") == "logits"
                           ? Readout::Logits
                           : Readout::Features;
  // The paper does not say whether a negative transfer entropy counts as the smallest.
  selection_.absolute = params.choice("transfer_entropy", "signed", {"signed", "absolute"},
                                      "compare signed values, or magnitudes") == "absolute";
  selection_.samples = params.integer("samples", 2048, 2, std::numeric_limits<std::int64_t>::max(),
                                      "images the search looks at");
  selection_.split = params.choice("decide_on", "train", {"train", "holdout"},
                                   "which data the search looks at; never the test set") == "train"
                         ? DecisionSplit::Train
                         : DecisionSplit::Holdout;
  direct_ = params.boolean("direct", false, "remove at once instead of diluting (a control)");
  compensation_ = params.boolean("compensation", true,
                                 "fade the branch into the identity, not into nothing (a control)");
  read_mask(params);
  fade_ = read_fade(params, "dilution", 0.0);
}

void Nose::read_selection(Params& params) {
  const std::string strategy =
      params.choice("selection", kStrategies[0], kStrategies,
                    "how the layers are chosen: by the search, or as it has to be held against");
  selection_.strategy =
      static_cast<Strategy>(std::ranges::find(kStrategies, strategy) - kStrategies.begin());
  if (!selection_.layers.empty() && selection_.strategy != Strategy::Nose) {
    params.fail("selection", "chooses layers, but they are given; leave one of them out");
  }
  if (selection_.strategy == Strategy::Random) {
    selection_.draw =
        params.integer("selection_draw", 0, 0, 1'000'000, "which of the random sets of one seed");
  }
  if (selection_.strategy == Strategy::Exhaustive && selection_.remove > kMostExhaustive) {
    params.fail("remove", cat("an exhaustive search takes at most ", kMostExhaustive, " layers"));
  }
}

/// The paper speaks of a sparse mask, and its code has one scalar: which is an ablation.
void Nose::read_mask(Params& params) {
  const std::string mask = params.choice(
      "mask", "uniform", {"uniform", "element", "token", "channel", "sample", "layer"},
      "where lambda holds: everywhere; as a probability in training, drawn for what is named; or "
      "in the mean over layers, which go one after another");
  one_by_one_ = mask == "layer";
  if (mask != "uniform" && !one_by_one_) mask_ = mask_named(mask);
  if (direct_ && mask != "uniform") params.fail("mask", "nothing is diluted when direct = true");
}

const Registry<MethodInfo>::Add added{{
    .name = "nose",
    .summary = "removes the attention layers with the least transfer entropy, by dilution",
    .paper = "Lin et al., MLP Can Be a Good Transformer Learner, CVPR 2024",
    .semantics = 1,
    .phase = Phase::AttentionRemoval,
    .needs = {Slot::TokenMixer, Slot::ResidualGains},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction =
        "the outer loop of the search follows the authors' answers; the images and the "
        "sign convention behind the published sets are not known; masks other than uniform are "
        "ours",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<Nose>(params);
    },
    .example =
        [] {
          return MethodExample{.model = "vit",
                               .params = R"(name = "nose"
remove = 1
samples = 32
dilution_epochs = 1
dilution_per = "step")",
                               .model_params = kExampleVit,
                               .idle_params = "name = 'nose'\nremove = 0",
                               .starts_neutral = true};
        },
}};

}  // namespace
}  // namespace ablate::methods::nose
