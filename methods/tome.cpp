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
    const at::Tensor metric = match_features_ ? tokens : state.keys.mean(1);
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

std::shared_ptr<TokenReducer> make_reducer(Params& params) {
  const std::int64_t r = params.required_integer("r", 1, kManyTokens, "tokens merged");
  const bool proportional = params.boolean("prop_attn", true, "add log(size) to attention logits");
  const bool features =
      params.choice("metric", "keys", {"keys", "features"},
                    "what is compared: mean keys over heads, or the tokens") == "features";
  return std::make_shared<MergingReducer>(r, proportional, features);
}

const Registry<TokenReducerInfo>::Add added_reducer{{.name = "tome", .make = make_reducer}};

/// Token merging (Bolya et al., ICLR 2023; implemented from the paper): no parameters, no loss;
/// works on trained weights and during training alike.
class ToMe final : public Method {
 public:
  explicit ToMe(Params& params)
      : r_(params.integer("r", 8, 1, kManyTokens, "tokens merged in each merging block")),
        inflect_(
            params.number("inflect", 0.0, -1.0, 1.0,
                          "shape of the schedule: 0 constant, -1 falling from 2r to 0, 1 rising")),
        schedule_(
            params.integers("schedule", {}, 0, kManyTokens,
                            "tokens merged by block number instead of r; missing ones are 0")),
        start_(params.integer("start", 0, 0, 10'000,
                              "first merging block, counted among the blocks that can merge")),
        redistribute_(params.boolean(
            "redistribute", false,
            "raise r by depth / merging blocks, so that removed blocks do not lower the total")),
        proportional_(params.boolean("prop_attn", true, "add log(size) to attention logits")),
        metric_(params.choice("metric", "keys", {"keys", "features"},
                              "what is compared: mean keys over heads, or the tokens")) {}

  void apply(TrainContext& context) override {
    Surgeon& surgeon = context.surgeon();
    const std::vector<Block*> blocks = surgeon.model().blocks();
    const std::vector<std::size_t> merging = merging_blocks(blocks);
    const std::vector<std::int64_t> schedule = block_schedule(blocks.size(), merging.size());
    for (const std::size_t block : merging) {
      if (schedule[block] == 0) continue;
      surgeon.apply(
          InsertReducer{static_cast<int>(block), "tome", reducer_params(schedule[block])});
    }
  }

 private:
  /// Blocks that keep their attention, and with it keys, to the end; one that is about to lose it
  /// must not merge, or the moment of removal would change the tokens of all later blocks.
  std::vector<std::size_t> merging_blocks(const std::vector<Block*>& blocks) const {
    std::vector<std::size_t> merging;
    std::int64_t seen = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const bool can = blocks[i]->mixer() && !blocks[i]->retiring() &&
                       (metric_ == "features" || blocks[i]->mixer()->provides_keys());
      if (can && seen++ >= start_) merging.push_back(i);
    }
    return merging;
  }

  std::vector<std::int64_t> block_schedule(std::size_t depth, std::size_t merging) const {
    if (!schedule_.empty()) {
      std::vector<std::int64_t> schedule = schedule_;
      schedule.resize(std::max(depth, schedule.size()), 0);
      return schedule;
    }
    const auto blocks = static_cast<std::int64_t>(depth);
    const auto share = static_cast<std::int64_t>(std::max<std::size_t>(merging, 1));
    return merge_schedule(redistribute_ ? r_ * blocks / share : r_, inflect_, blocks);
  }

  Value reducer_params(std::int64_t r) const {
    return Value::Table{{"r", r}, {"prop_attn", proportional_}, {"metric", metric_}};
  }

  std::int64_t r_;
  double inflect_;
  std::vector<std::int64_t> schedule_;
  std::int64_t start_;
  bool redistribute_;
  bool proportional_;
  std::string metric_;
};

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
