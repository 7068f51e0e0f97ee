#include "methods/ela_settings.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate::methods::ela {
namespace {

constexpr std::int64_t kMany = 1'000'000;

/// A reading of "enhanced Beta quantile mapping", or what it is compared with.
struct Preset {
  std::string_view name;
  ControllerSettings settings;
};

ControllerSettings mapped(MappingSettings mapping) {
  ControllerSettings settings;
  settings.mapping = mapping;
  return settings;
}

ControllerSettings chosen(Choice choice) {
  ControllerSettings settings;
  settings.choice = choice;
  return settings;
}

/// The default: robust scale, and decisions made steady.
ControllerSettings enhanced() {
  ControllerSettings settings = mapped({.limit = 0.4, .hysteresis = 0.1});
  settings.filter = {.patience = 2, .most_skipped = 0.7};
  settings.memory = 0.5;
  return settings;
}

ControllerSettings layer_quantiles() {
  ControllerSettings settings =
      mapped({.statistic = Statistic::Quantile, .source = Source::None, .limit = 0.1});
  settings.memory = 0.5;
  return settings;
}

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all{
      {"ebqm", enhanced()},
      {"bqm", mapped({.scale = Scale::None, .limit = 0.4})},
      {"bqm_rank", mapped({.source = Source::Empirical, .beta_target = true, .limit = 0.2})},
      {"ebqm_layer", layer_quantiles()},
      {"bqm_soft", mapped({.scale = Scale::None, .rule = Rule::Bernoulli})},
      {"threshold", mapped({.source = Source::None, .limit = 0.1})},
      {"top_m", mapped({.source = Source::None, .rule = Rule::Smallest})},
      {"random_m", chosen(Choice::Random)},
      {"every_other", chosen(Choice::EveryOther)},
      {"first_m", chosen(Choice::First)},
      {"last_m", chosen(Choice::Last)},
      {"given", chosen(Choice::Given)},
  };
  return all;
}

ControllerSettings read_preset(Params& params) {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.emplace_back(preset.name);
  const std::string name = params.choice(
      "preset", "ebqm", names,
      "how layers are chosen; top_m, random_m, every_other, first_m and last_m take "
      "skip, threshold, bqm_rank and ebqm_layer take threshold, random ones draw, given "
      "takes layers");
  return std::ranges::find(presets(), name, &Preset::name)->settings;
}

void read_target(Params& params, MappingSettings& mapping) {
  mapping.beta_target = params.boolean("beta_target", mapping.beta_target,
                                       "map to a Beta distribution, not to a uniform one");
  if (!mapping.beta_target) return;
  mapping.target.alpha = params.number("target_alpha", mapping.target.alpha, 0.05, 1e4, "of it");
  mapping.target.beta = params.number("target_beta", mapping.target.beta, 0.05, 1e4, "of it");
}

void read_mapping(Params& params, MappingSettings& mapping) {
  if (mapping.statistic == Statistic::Quantile) {
    mapping.confidence =
        params.number("confidence", mapping.confidence, 0.01, 0.99,
                      "a layer's divergence lies below its limit with this probability");
  }
  if (mapping.source == Source::Beta) {
    mapping.scale = params.choice("scale", mapping.scale == Scale::Median ? "median" : "none",
                                  {"median", "none"}, "what divergences are measured by") == "none"
                        ? Scale::None
                        : Scale::Median;
  }
  if (mapping.source != Source::None) read_target(params, mapping);
  if (mapping.rule == Rule::Below && mapping.source == Source::Beta) {
    mapping.limit = params.number("q", mapping.limit, 0.0, 1.0, "quantile below which layers go");
  } else if (mapping.rule == Rule::Below) {
    mapping.limit =
        params.number("threshold", mapping.limit, 0.0, 1e6, "scores up to this one are redundant");
  }
  if (mapping.rule == Rule::Below) {
    mapping.hysteresis = params.number("hysteresis", mapping.hysteresis, 0.0, 1e6,
                                       "by which a skipped layer must exceed the limit to return");
  }
}

/// How many, where the choice takes a number.
void read_count(Params& params, ControllerSettings& settings) {
  if (settings.choice == Choice::Given) {
    settings.layers =
        params.integers("layers", {}, 0, kMany, "blocks whose retrievals are skipped");
    if (settings.layers.empty()) params.fail("layers", "nothing to skip: name some blocks");
    settings.skip = std::ssize(settings.layers);
    return;
  }
  const bool every_other = settings.choice == Choice::EveryOther;
  const bool counts = settings.choice != Choice::Mapping || settings.mapping.rule == Rule::Smallest;
  if (!counts) return;
  settings.skip = params.integer(
      "skip", 0, 0, kMany,
      every_other ? "layers to skip; 0: every other of each stage" : "layers to skip");
  if (settings.skip == 0 && !every_other) {
    params.fail("skip", "nothing to skip: set skip = M, the number of layers");
  }
  settings.mapping.count = settings.skip;
}

void read_filter(Params& params, FilterSettings& filter) {
  filter.patience = static_cast<int>(params.integer(
      "patience", filter.patience, 1, 1000, "decisions in a row that skip a layer, or revive it"));
  filter.most_skipped = params.number("most_skipped", filter.most_skipped, 0.0, 1.0,
                                      "share of the candidates that may be skipped");
  filter.never_above = params.number("never_above", filter.never_above, 0.0, 1e6,
                                     "layers of larger mean divergence stay; 0: off");
  filter.in_a_row = params.integer("in_a_row", filter.in_a_row, 0, kMany,
                                   "most skipped neighbours in a stage; 0: off");
  if (filter.most_skipped == 0.0) params.fail("most_skipped", "0 would skip nothing");
}

ControllerSettings read_controller(Params& params) {
  ControllerSettings settings = read_preset(params);
  read_count(params, settings);
  const bool random =
      settings.choice == Choice::Random ||
      (settings.choice == Choice::Mapping && settings.mapping.rule == Rule::Bernoulli);
  if (random) settings.draw = params.integer("draw", 0, 0, kMany, "which random draw");
  if (settings.choice != Choice::Mapping) return settings;
  read_mapping(params, settings.mapping);
  settings.memory = params.number("ema", settings.memory, 0.0, 0.999,
                                  "weight of earlier epochs in averages of divergences");
  if (settings.mapping.rule != Rule::Bernoulli) read_filter(params, settings.filter);
  settings.each_stage = params.choice("compare", "all", {"all", "stage"},
                                      "which layers are held against each other") == "stage";
  return settings;
}

Divergence read_divergence(Params& params, bool gates) {
  std::vector<std::string> names;
  for (int i = 0; i <= static_cast<int>(Divergence::Categorical); ++i) {
    const auto kind = static_cast<Divergence>(i);
    if (gates ? compares_gates(kind) : compares_rows(kind))
      names.emplace_back(divergence_name(kind));
  }
  return divergence_named(params.choice("divergence", gates ? "bernoulli" : "padded", names,
                                        "how far a layer is from its neighbour"));
}

SkipMode read_mode(Params& params, bool gates) {
  const std::vector<std::string> names =
      gates ? std::vector<std::string>{"drop", "reuse"}
            : std::vector<std::string>{"drop", "keep_keys", "reuse", "recur"};
  return skip_mode_named(params.choice("mode", "drop", names, "what a skipped retrieval leaves"));
}

}  // namespace

Settings Settings::read(Params& params, bool gates) {
  Settings settings;
  settings.mode = read_mode(params, gates);
  settings.controller = read_controller(params);
  if (settings.needs_divergences()) {
    settings.divergence = read_divergence(params, gates);
    settings.clip = params.number("clip", settings.clip, 1e-3, 1e6,
                                  "divergences of single samples and heads are cut off here");
    settings.shadow = params.boolean("shadow", settings.shadow,
                                     "measure skipped layers, too, so that they can return");
  }
  settings.warmup_epochs = params.integer_or("warmup_epochs", "auto", std::nullopt, 0, kMany,
                                             "epochs before the first decision; auto: a tenth");
  settings.freeze_epoch =
      params.integer_or("freeze_epoch", "auto", std::nullopt, 0, kMany,
                        "epoch of the last decision, best before the learning rate falls; auto: "
                        "half of the run");
  settings.period = params.integer("period", 1, 1, kMany, "epochs from decision to decision");
  return settings;
}

int Settings::leave_out() const {
  const bool needs_two =
      divergence == Divergence::Shared || divergence == Divergence::SharedReverse;
  return needs_divergences() && needs_two ? 2 : 1;
}

SearchPlan Settings::plan(std::int64_t epochs) const {
  const std::int64_t patience = needs_divergences() ? controller.filter.patience : 1;
  SearchPlan plan;
  plan.period = period;
  plan.warmup = warmup_epochs.value_or((epochs + 9) / 10);
  // Divergences of epoch 0 are known at the start of epoch 1.
  if (needs_divergences()) plan.warmup = std::max<std::int64_t>(plan.warmup, 1);
  const std::int64_t first_mask = plan.warmup + (patience - 1) * period;
  plan.freeze = freeze_epoch.value_or(std::max(epochs / 2, first_mask));
  if (plan.freeze < first_mask) {
    throw SpecError(cat("methods.ela.freeze_epoch: no layer could be skipped before epoch ",
                        first_mask, ", the end of warmup_epochs = ", plan.warmup,
                        " and patience = ", patience, ", but the mask is frozen at epoch ",
                        plan.freeze));
  }
  if (plan.freeze >= epochs) {
    throw SpecError(cat("methods.ela.freeze_epoch: of ", epochs,
                        " epochs none is left after the "
                        "mask is frozen at epoch ",
                        plan.freeze,
                        "; train longer, or lower freeze_epoch, warmup_epochs or patience"));
  }
  return plan;
}

}  // namespace ablate::methods::ela
