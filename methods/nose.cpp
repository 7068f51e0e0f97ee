#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

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
      set_gains(context.surgeon(), 0.0);
      remove(context);
    } else {
      check_ends(length_of(context));
    }
  }

  void between_steps(TrainContext& context) override {
    if (removed_) return;
    const double lambda = lambda_at(length_of(context), context.step());
    if (lambda == lambda_) return;
    lambda_ = lambda;
    context.metric("nose/lambda", lambda);
    set_gains(context.surgeon(), lambda);
    if (lambda == 0.0) remove(context);
  }

  void finalize(Surgeon& surgeon) override {
    if (removed_) return;
    set_gains(surgeon, 0.0);
    surgeon.apply_neutral(each_layer<RemoveMixer>());
    note_removal();
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
  static RunLength length_of(const TrainContext& context) {
    return RunLength::of_epochs(context.steps_per_epoch(), context.epochs());
  }

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

  /// (skip, branch) at lambda; without compensation the identity is not made up for the branch.
  ResidualGains gains(double lambda) const {
    return {.skip = compensation_ ? 2.0 - lambda : 1.0, .branch = lambda};
  }

  void set_gains(Surgeon& surgeon, double lambda) const {
    for (const std::int64_t layer : selection_.layers) {
      const auto [skip, branch] = gains(lambda);
      surgeon.apply(SetGains{static_cast<int>(layer), skip, branch});
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

  /// At lambda = 0 the branches are not computed any more, so nothing moves when they go.
  void remove(TrainContext& context) {
    context.apply_neutral(each_layer<RemoveMixer>());
    note_removal();
  }

  void note_removal() {
    lambda_ = 0.0;
    removed_ = true;
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
  fade_ = read_fade(params, "dilution", 0.0);
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
        "sign convention behind the published sets are not known",
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
                               .model_params = R"(image_size = 16
patch_size = 4
embed_dim = 16
depth = 3
num_heads = 2)",
                               .idle_params = "name = 'nose'\nremove = 0",
                               .starts_neutral = true};
        },
}};

}  // namespace
}  // namespace ablate::methods::nose
