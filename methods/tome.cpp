#include <algorithm>

#include "methods/method.h"
#include "methods/token_merging.h"
#include "runner/core/error.h"

namespace ablate::methods::tome {
namespace {

/// Merges r tokens between mixer and MLP. State of the pass: sizes, and sources when tracked.
class MergingReducer final : public TokenReducer {
 public:
  MergingReducer(std::int64_t r, bool proportional_attention, bool match_features)
      : r_(r), proportional_attention_(proportional_attention), match_features_(match_features) {}

  void begin(ForwardState& state) override {
    state.proportional_attention = proportional_attention_;
  }

  at::Tensor forward(const at::Tensor& tokens, ForwardState& state) override {
    const at::Tensor metric = match_features_ ? tokens : state.keys.detach().mean(1);
    const MergePlan plan = match_tokens(metric, r_, state.protected_tokens);
    if (plan.merged() == 0) return tokens;
    auto [merged, sizes] = merge_weighted(plan, tokens, state.token_sizes);
    state.token_sizes = sizes;
    if (state.track_sources) {
      const at::Tensor positions = merge_positions(plan);
      state.sources = state.sources.defined() ? positions.gather(1, state.sources) : positions;
    }
    return merged;
  }

  bool needs_keys() const override { return !match_features_; }

 private:
  std::int64_t r_;
  bool proportional_attention_;
  bool match_features_;
};

constexpr std::int64_t kManyTokens = 1 << 20;
constexpr std::string_view kMetricHelp =
    "what is compared: keys averaged over heads, or the tokens themselves";

std::shared_ptr<TokenReducer> make_reducer(Params& params) {
  const std::int64_t r = params.required_integer("r", 1, kManyTokens, "tokens merged");
  const bool proportional = params.boolean("prop_attn", true, "add log(size) to attention logits");
  const bool features =
      params.choice("metric", "keys", {"keys", "features"}, kMetricHelp) == "features";
  return std::make_shared<MergingReducer>(r, proportional, features);
}

const Registry<TokenReducerInfo>::Add added_reducer{{.name = "tome", .make = make_reducer}};

/// Token merging (Bolya et al., ICLR 2023; implemented from the paper): no parameters, no loss;
/// works on trained weights and during training alike.
class ToMe final : public Method {
 public:
  explicit ToMe(Params& params);

  void apply(TrainContext& context) override {
    Surgeon& surgeon = context.surgeon();
    const std::vector<Block*> blocks = surgeon.model().blocks();
    const std::vector<Site> sites = merging_sites(blocks);
    const std::vector<std::int64_t> schedule = block_schedule(blocks.size(), sites.size());
    for (const Site& site : sites) {
      const std::int64_t r = schedule[site.block];
      if (r == 0) continue;
      const Value::Table params{{"r", r}, {"prop_attn", proportional_}, {"metric", site.metric}};
      surgeon.apply(InsertReducer{static_cast<int>(site.block), "tome", params});
    }
  }

 private:
  struct Site {
    std::size_t block;
    std::string metric;
  };

  std::vector<Site> merging_sites(const std::vector<Block*>& blocks) const {
    std::vector<Site> sites;
    std::int64_t seen = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const std::string metric = metric_of(*blocks[i]);
      if (!metric.empty() && seen++ >= start_) sites.push_back({i, metric});
    }
    return sites;
  }

  /// What a block compares; empty where it does not merge. A block whose attention is about to go
  /// counts as without it, or the moment of removal would change the tokens of all later blocks.
  std::string metric_of(const Block& block) const {
    if (!block.mixer() || block.retiring()) return without_attention_ == "skip" ? "" : "features";
    return metric_ == "keys" && !block.mixer()->provides_keys() ? "" : metric_;
  }

  /// Tokens to merge by block number.
  std::vector<std::int64_t> block_schedule(std::size_t depth, std::size_t merging) const {
    const auto blocks = static_cast<std::int64_t>(depth);
    if (!schedule_.empty()) {
      std::vector<std::int64_t> schedule = schedule_;
      if (schedule.size() > depth) {
        throw SpecError(cat("methods.tome.schedule: ", schedule.size(), " numbers for ", depth,
                            " blocks; give at most one a block"));
      }
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
  metric_ = params.choice("metric", "keys", {"keys", "features"}, kMetricHelp);
  without_attention_ = params.choice("without_attention", "skip", {"skip", "features"},
                                     "blocks that have lost their attention: do not merge, or "
                                     "compare the tokens");
  if (schedule_.empty() && r_ == 0) {
    params.fail("r", "nothing to merge: set r, or schedule = [...]");
  }
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
                               .model_params = R"(image_size = 16
patch_size = 4
embed_dim = 16
depth = 3
num_heads = 2)"};
        },
}};

}  // namespace
}  // namespace ablate::methods::tome
