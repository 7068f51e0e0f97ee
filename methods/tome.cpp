#include <algorithm>

#include "methods/example_vit.h"
#include "methods/method.h"
#include "methods/models/ops.h"
#include "methods/models/random_numbers.h"
#include "methods/token_merging.h"
#include "methods/token_selection.h"
#include "runner/core/error.h"

namespace ablate::methods::tome {
namespace {

/// What a matching compares.
enum class Metric {
  Keys,          ///< of the same block, averaged over heads
  Features,      ///< the tokens themselves
  NormFeatures,  ///< the tokens as the MLP sees them
  CachedKeys,    ///< keys of the last attention, carried along
  Random,        ///< numbers that know nothing of the tokens
};

const std::vector<std::string> kMetrics{"keys", "features", "norm_features", "cached_keys",
                                        "random"};

Metric metric_named(const std::string& name) {
  return static_cast<Metric>(std::ranges::find(kMetrics, name) - kMetrics.begin());
}

struct MergingOptions {
  std::int64_t r;
  bool proportional_attention;
  Metric metric;
  bool prune;  ///< who joins somebody is dropped
};

/// Merges r tokens between mixer and MLP. State of the pass: sizes, sources when tracked, and keys
/// when carried.
class MergingReducer final : public TokenReducer {
 public:
  explicit MergingReducer(const MergingOptions& options) : options_(options) {}

  void begin(ForwardState& state) override {
    state.proportional_attention = options_.proportional_attention;
    if (options_.metric == Metric::CachedKeys) state.carry_keys = true;
  }

  TokenStream forward(TokenStream stream, ForwardState& state) override {
    if (compares_tokens()) stream = {ops::join(stream, state)};
    const MergePlan plan = match(stream, state);
    if (!options_.prune) return merge_stream(plan, stream, state);
    if (plan.merged() == 0) return stream;
    return keep_tokens(representatives(plan), stream, state);
  }

  KeyNeed key_need() const override {
    if (options_.metric == Metric::Keys) return KeyNeed::OwnBlock;
    return options_.metric == Metric::CachedKeys ? KeyNeed::Carried : KeyNeed::None;
  }

 private:
  bool compares_tokens() const {
    return options_.metric == Metric::Features || options_.metric == Metric::NormFeatures;
  }

  /// Nothing where the attention whose keys it needs is not run.
  MergePlan match(const TokenStream& stream, const ForwardState& state) const {
    const at::NoGradGuard no_grad;  // a matching is a constant of the pass
    const std::int64_t r = options_.r;
    switch (options_.metric) {
      case Metric::Keys:
        return match_keys(state.keys, r, state);
      case Metric::Features:
        return match_metric(stream.base, r, state);
      case Metric::NormFeatures:
        return match_metric(state.following_norm->forward(stream.base), r, state);
      case Metric::CachedKeys:
        return state.carried_keys.defined() ? match_metric(state.carried_keys, r, state)
                                            : MergePlan{};
      case Metric::Random:
        return match_metric(random_metric(stream.base, state), r, state);
    }
    check_failed("known metric", cat(static_cast<int>(options_.metric)));
  }

  /// Anew for each image and step in training, the same for all images else.
  at::Tensor random_metric(const at::Tensor& x, const ForwardState& state) const {
    constexpr std::int64_t kWidth = 8;
    const std::int64_t batch = x.size(0), tokens = x.size(1), count = tokens * kWidth;
    const at::Tensor numbers = is_training()
                                   ? uniform_numbers(state, qualified_name, batch, count, x)
                                   : fixed_numbers(qualified_name, count, x).expand({batch, count});
    return (numbers - 0.5).reshape({batch, tokens, kWidth});
  }

  MergingOptions options_;
};

constexpr std::int64_t kManyTokens = 1 << 20;
constexpr std::string_view kMetricHelp =
    "what is compared: keys averaged over heads, the tokens themselves, the tokens as norm2 makes "
    "them, or random numbers (a control)";
const std::vector<std::string> kOperations{"merge", "prune"};
constexpr std::string_view kOperationHelp =
    "average matched tokens, or drop those that would join another";

std::shared_ptr<TokenReducer> make_reducer(Params& params) {
  const std::int64_t r = params.required_integer("r", 1, kManyTokens, "tokens merged");
  const bool proportional = params.boolean("prop_attn", true, "add log(size) to attention logits");
  const Metric metric = metric_named(params.choice("metric", "keys", kMetrics, kMetricHelp));
  const bool prune = params.choice("operation", "merge", kOperations, kOperationHelp) == "prune";
  return std::make_shared<MergingReducer>(MergingOptions{r, proportional, metric, prune});
}

const Registry<TokenReducerInfo>::Add added_reducer{{.name = "tome", .make = make_reducer}};

/// Token merging (Bolya et al., ICLR 2023; implemented from the paper): no parameters, no loss;
/// works on trained weights and during training alike.
class ToMe final : public Method {
 public:
  explicit ToMe(Params& params);

  void check(const RunOutline& run) const override { check_schedule(run.base.blocks().size()); }

  void apply(TrainContext& context) override {
    Surgeon& surgeon = context.surgeon();
    const std::vector<Block*> blocks = surgeon.model().blocks();
    const std::vector<Site> sites = merging_sites(blocks);
    const std::vector<std::int64_t> schedule = block_schedule(blocks.size(), sites.size());
    for (const Site& site : sites) {
      const std::int64_t r = schedule[site.block];
      if (r == 0) continue;
      Value::Table params{{"r", r}, {"prop_attn", proportional_}, {"metric", site.metric}};
      if (operation_ != "merge") params["operation"] = operation_;
      surgeon.apply(InsertReducer{static_cast<int>(site.block), "tome", params});
    }
    if (!sites.empty()) check_shortened(surgeon.model(), "tome");
  }

 private:
  struct Site {
    std::size_t block;
    std::string metric;
  };

  std::vector<Site> merging_sites(const std::vector<Block*>& blocks) const {
    std::vector<Site> sites;
    std::int64_t seen = 0;
    bool keys_before = false;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const std::string metric = metric_of(*blocks[i], keys_before);
      if (!metric.empty() && seen++ >= start_) sites.push_back({i, metric});
      keys_before = keys_before || blocks[i]->keeps_keys();
    }
    return sites;
  }

  /// What a block compares; empty where it does not merge. A block whose attention is about to go
  /// counts as without it, or the moment of removal would change the tokens of all later blocks.
  std::string metric_of(const Block& block, bool keys_before) const {
    if (!block.mixer() || block.retiring()) {
      const bool nothing_cached = without_attention_ == "cached_keys" && !keys_before;
      return without_attention_ == "skip" || nothing_cached ? "" : without_attention_;
    }
    return metric_ == "keys" && !block.mixer()->provides_keys() ? "" : metric_;
  }

  void check_schedule(std::size_t depth) const {
    if (schedule_.size() <= depth) return;
    throw SpecError(cat("methods.tome.schedule: ", schedule_.size(), " numbers for ", depth,
                        " blocks; give at most one a block"));
  }

  /// Tokens to merge by block number.
  std::vector<std::int64_t> block_schedule(std::size_t depth, std::size_t merging) const {
    const auto blocks = static_cast<std::int64_t>(depth);
    if (!schedule_.empty()) {
      check_schedule(depth);
      std::vector<std::int64_t> schedule = schedule_;
      schedule.resize(depth, 0);
      return schedule;
    }
    const auto share = static_cast<std::int64_t>(std::max<std::size_t>(merging, 1));
    return merge_schedule(redistribute_ ? r_ * blocks / share : r_, inflect_, blocks);
  }

  std::vector<std::int64_t> schedule_;
  std::int64_t r_;
  double inflect_;
  std::int64_t start_;
  bool redistribute_;
  bool proportional_;
  std::string metric_;
  std::string without_attention_;
  std::string operation_;
};

ToMe::ToMe(Params& params) {
  schedule_ = params.integers("schedule", {}, 0, kManyTokens,
                              "tokens merged by block number instead of r; missing ones are 0");
  r_ = params.integer("r", schedule_.empty() ? 8 : 0, 0, kManyTokens,
                      "tokens merged in each merging block");
  inflect_ = params.number("inflect", 0.0, -1.0, 1.0,
                           "shape of the schedule: 0 constant, -1 falling from 2r to 0, 1 rising");
  start_ = params.integer("start", 0, 0, 10'000,
                          "first merging block, counted among the blocks that can merge");
  redistribute_ = params.boolean(
      "redistribute", false,
      "raise r by depth / merging blocks, so that removed blocks do not lower the total");
  proportional_ = params.boolean("prop_attn", true, "add log(size) to attention logits");
  metric_ =
      params.choice("metric", "keys", {"keys", "features", "norm_features", "random"}, kMetricHelp);
  without_attention_ = params.choice(
      "without_attention", "skip", {"skip", "features", "norm_features", "cached_keys"},
      "blocks that have lost their attention: do not merge, or compare the tokens, "
      "or the keys of the attention before");
  if (schedule_.empty() && r_ == 0) {
    params.fail("r", "nothing to merge: set r, or schedule = [...]");
  }
  operation_ = params.choice("operation", "merge", kOperations, kOperationHelp);
  if (!schedule_.empty() && (r_ != 0 || inflect_ != 0.0 || redistribute_)) {
    params.fail("schedule", "takes the place of r, inflect and redistribute; leave those out");
  }
}

const Registry<MethodInfo>::Add added{{
    .name = "tome",
    .summary = "token merging: similar tokens are averaged between attention and MLP",
    .paper = "Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023",
    .semantics = 1,
    .phase = Phase::TokenReduction,
    .needs = {Slot::TokenReducer},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction = "",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<ToMe>(params);
    },
    .example =
        [] {
          return MethodExample{.model = "vit",
                               .params = R"(name = "tome"
r = 2)",
                               .model_params = kExampleVit,
                               .idle_params = "name = 'tome'\nr = 0"};
        },
}};

}  // namespace
}  // namespace ablate::methods::tome
