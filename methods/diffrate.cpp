#include <algorithm>

#include "methods/example_vit.h"
#include "methods/method.h"
#include "methods/models/uncounted.h"
#include "methods/token_merging.h"
#include "methods/token_selection.h"
#include "runner/core/error.h"

namespace ablate::methods::diffrate {
namespace {

/// Numbers of tokens, those in front included, that a block lets through: first the least important
/// ones are dropped, then the least important ones left join those most like them.
struct Rates {
  std::int64_t prune, merge;
};

class RankedReducer final : public TokenReducer {
 public:
  explicit RankedReducer(Rates rates) : rates_(rates) {}

  void begin(ForwardState& state) override { state.proportional_attention = true; }

  TokenStream forward(TokenStream stream, ForwardState& state) override {
    const std::int64_t front = state.protected_tokens, tokens = state.class_attention.size(1);
    ABLATE_CHECK(front > 0, "a model without class token");
    const std::int64_t pruned = std::min(rates_.prune, tokens);
    const std::int64_t merged = std::min(rates_.merge, pruned);
    if (merged == tokens) return stream;
    ABLATE_CHECK(merged > front, "no token to join behind those in front");
    const at::Tensor order =
        by_score(state.class_attention.narrow(1, front, tokens - front), front);
    stream = keep_tokens(order.narrow(1, 0, pruned), stream, state);
    return merged == pruned ? stream : merge_last(stream.base, merged, state);
  }

  KeyNeed key_need() const override { return KeyNeed::ClassAttention; }

 private:
  /// Tokens from number `left` on join the most similar one before them, which becomes the plain
  /// mean of its group. A joining token counts in the size of the group by its similarity.
  static TokenStream merge_last(const at::Tensor& x, std::int64_t left, ForwardState& state) {
    const std::int64_t batch = x.size(0), tokens = x.size(1);
    const auto precise = at::promote_types(x.scalar_type(), at::kFloat);
    const at::Tensor ones = at::ones({batch, tokens, 1}, x.options().dtype(precise));
    const auto [positions, similarity] = partners(x, left, state.protected_tokens);
    const MergePlan plan{.positions = positions, .tokens = tokens, .left = left};
    const at::Tensor counts = merge_sum(plan, ones);
    const at::Tensor sizes = state.token_sizes.defined() ? state.token_sizes : ones;
    // A token unlike all others would take away from a size, of which attention takes the
    // logarithm.
    const at::Tensor shares =
        at::cat({ones.narrow(1, 0, left), similarity.clamp_min(0.0).unsqueeze(2).to(precise)}, 1);
    state.token_sizes = merge_sum(plan, sizes * shares);
    state.log_sizes.reset();
    return {(merge_sum(plan, x.to(precise)) / counts).to(x.scalar_type())};
  }

  struct Partners {
    at::Tensor positions;   ///< (B, N): where each token goes
    at::Tensor similarity;  ///< (B, N - left): of each that joins with whom it joins
  };
  static Partners partners(const at::Tensor& x, std::int64_t left, std::int64_t front) {
    const at::NoGradGuard no_grad;
    const UncountedScope uncounted;
    const at::Tensor precise = x.detach().to(at::promote_types(x.scalar_type(), at::kFloat));
    const at::Tensor unit = precise / precise.norm(2, -1, true).clamp_min(1e-12);
    const at::Tensor joining = unit.narrow(1, left, x.size(1) - left);
    const at::Tensor others = unit.narrow(1, front, left - front);
    const auto [similarity, partner] = at::matmul(joining, others.transpose(1, 2)).max(-1);
    const at::Tensor stay = at::arange(left, partner.options()).expand({x.size(0), left});
    return {at::cat({stay, partner + front}, 1), similarity};
  }

  Rates rates_;
};

constexpr std::int64_t kManyTokens = 1 << 20;

std::shared_ptr<TokenReducer> make_reducer(Params& params) {
  Rates rates{};
  rates.prune = params.required_integer("prune", 1, kManyTokens, "tokens kept by dropping others");
  rates.merge = params.required_integer("merge", 1, kManyTokens, "tokens kept by merging others");
  return std::make_shared<RankedReducer>(rates);
}

const Registry<TokenReducerInfo>::Add added_reducer{{.name = "diffrate", .make = make_reducer}};

/// Pruning and merging by a table of token counts, as DiffRate (Chen et al., ICCV 2023) leaves it
/// when its rates have been learnt. Implemented from the paper; the learning of rates is not here.
class DiffRate final : public Method {
 public:
  explicit DiffRate(Params& params)
      : prune_(params.integers("prune", {}, 1, kManyTokens,
                               "tokens, class token included, that each block keeps by dropping "
                               "the others; missing blocks drop none")),
        merge_(params.integers("merge", {}, 1, kManyTokens,
                               "tokens that each block keeps by merging the others after that; "
                               "missing blocks merge none")) {
    if (prune_.empty() && merge_.empty()) {
      params.fail("merge", "nothing to reduce: give counts by block in prune, merge or both");
    }
  }

  void check(const RunOutline& run) const override { check_depth(run.base.blocks().size()); }

  void apply(TrainContext& context) override {
    Surgeon& surgeon = context.surgeon();
    const std::vector<Block*> blocks = surgeon.model().blocks();
    check_depth(blocks.size());
    std::int64_t tokens = initial_tokens(surgeon.model());
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const std::int64_t prune = std::min(entry(prune_, i), tokens);
      const std::int64_t merge = std::min(entry(merge_, i), prune);
      // What a block without attention cannot rank is made up for by the counts of the next one.
      if (merge == tokens || !ranks(*blocks[i])) continue;
      surgeon.apply(InsertReducer{static_cast<int>(i), "diffrate",
                                  Value::Table{{"prune", prune}, {"merge", merge}}});
      tokens = merge;
    }
    check_shortened(surgeon.model(), "diffrate");
  }

 private:
  static bool ranks(const Block& block) {
    return block.mixer() && !block.retiring() && block.mixer()->provides_class_attention();
  }
  static std::int64_t entry(const std::vector<std::int64_t>& counts, std::size_t block) {
    return block < counts.size() ? counts[block] : kManyTokens;
  }

  void check_depth(std::size_t depth) const {
    for (const auto& [key, counts] : {std::pair("prune", &prune_), std::pair("merge", &merge_)}) {
      if (counts->size() <= depth) continue;
      throw SpecError(cat("methods.diffrate.", key, ": ", counts->size(), " numbers for ", depth,
                          " blocks; give at most one a block"));
    }
  }

  std::vector<std::int64_t> prune_, merge_;
};

const Registry<MethodInfo>::Add added{{
    .name = "diffrate",
    .summary = "drops, then merges the tokens that the class token looks at least, by a table",
    .paper = "Chen et al., DiffRate: Differentiable Compression Rate for Efficient Vision "
             "Transformers, ICCV 2023",
    .semantics = 1,
    .phase = Phase::TokenReduction,
    .needs = {Slot::TokenReducer},
    .conflicts = kFollowTokens,
    .conflict_reason = kDroppedTokens,
    .reconstruction = "the table is given, not learnt; sizes of groups grow by similarity as the "
                      "published evaluation has it, also in training, and not below 0",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<DiffRate>(params);
    },
    .example =
        [] {
          return MethodExample{.model = "vit",
                               .params = R"(name = "diffrate"
prune = [17, 14, 9]
merge = [15, 11, 7])",
                               .model_params = kExampleVit,
                               .idle_params = "name = 'diffrate'\nprune = [17, 17, 17]"};
        },
}};

}  // namespace
}  // namespace ablate::methods::diffrate
